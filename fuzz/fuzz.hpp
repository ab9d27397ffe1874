// What the fuzz targets share: numbers at the edges, memory of exactly the size that is declared, checks that abort.
//
// Each target is a libFuzzer harness of one entry point that takes foreign bytes or counts. Its input is the seed of a
// call, not a file format: the harness draws the call from it. tools/fuzz_core.sh builds and runs them.
#pragma once

#include <fuzzer/FuzzedDataProvider.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

namespace fuzz {

using Provider = FuzzedDataProvider;

// Ends the run, so that libFuzzer keeps the input.
inline void require(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "fuzz: %s\n", what.c_str());
  std::abort();
}

// A count as a hostile caller would choose it: small, at an edge, near one, or any.
inline std::int64_t number(Provider& in) {
  constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
  constexpr std::array<std::int64_t, 12> kEdges{0,
                                                std::int64_t{1} << 20,
                                                std::int64_t{1} << 31,
                                                std::int64_t{1} << 32,
                                                std::int64_t{1} << 40,
                                                std::int64_t{1} << 60,
                                                std::int64_t{1} << 61,
                                                std::int64_t{1} << 62,
                                                kMax,
                                                -kMax - 1,
                                                -(std::int64_t{1} << 32),
                                                -(std::int64_t{1} << 62)};
  switch (in.ConsumeIntegralInRange(0, 3)) {
    case 0:
      return in.ConsumeIntegralInRange<std::int64_t>(-3, 70);
    case 1:
      return in.PickValueInArray(kEdges);
    case 2: {
      const auto edge = static_cast<std::uint64_t>(in.PickValueInArray(kEdges));
      return static_cast<std::int64_t>(edge + static_cast<std::uint64_t>(in.ConsumeIntegralInRange<int>(-9, 9)));
    }
    default:
      return in.ConsumeIntegral<std::int64_t>();
  }
}

// `size` bytes drawn from the input, repeated where it ends. Neither more nor less memory: AddressSanitizer sees the
// byte before and the byte after.
inline std::vector<std::byte> bytes(Provider& in, std::size_t size) {
  const std::vector<std::uint8_t> drawn = in.ConsumeBytes<std::uint8_t>(size < 256 ? size : 256);
  std::vector<std::byte> out(size);
  for (std::size_t i = 0; i < size && !drawn.empty(); ++i) out[i] = std::byte{drawn[i % drawn.size()]};
  return out;
}

// Where the elements of a strided array lie, in exact arithmetic.
struct ExactReach {
  __int128 low = 0;
  __int128 high = 0;

  void add(std::int64_t length, std::int64_t stride) {
    const __int128 last = static_cast<__int128>(length - 1) * stride;
    (last < 0 ? low : high) += last;
  }
  bool fits() const {
    return low >= std::numeric_limits<std::int64_t>::min() && high <= std::numeric_limits<std::int64_t>::max();
  }
};

}  // namespace fuzz
