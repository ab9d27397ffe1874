// The common code of the fuzz targets: numbers at the edges, memory of exactly the declared size, and checks that
// abort.
//
// Each target is a libFuzzer harness of one entry point that takes foreign bytes or counts. The input is not a file
// format: the harness draws the arguments of a call from the input. tools/fuzz_core.sh builds and runs the targets.
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

// Ends the run unless `condition` holds, so that libFuzzer keeps the input.
inline void require(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "fuzz: %s\n", what.c_str());
  std::abort();
}

// A count that a hostile caller might choose: small, at an edge, near an edge, or any number.
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

// `size` bytes drawn from the input, repeated where the input ends. The memory has exactly this size, so that
// AddressSanitizer sees an access to the byte before or after it.
inline std::vector<std::byte> bytes(Provider& in, std::size_t size) {
  const std::vector<std::uint8_t> drawn = in.ConsumeBytes<std::uint8_t>(size < 256 ? size : 256);
  std::vector<std::byte> out(size);
  for (std::size_t i = 0; i < size && !drawn.empty(); ++i) out[i] = std::byte{drawn[i % drawn.size()]};
  return out;
}

// The positions of the elements of a strided array, in exact arithmetic.
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
