#include "core/band_root.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "core/errors.hpp"
#include "core/matrix.hpp"
#include "core/multiversion.hpp"
#include "core/parallel.hpp"
#include "core/root_table.hpp"

namespace fastfid {
namespace {

constexpr std::size_t kLanes = 8;
using Lanes = double __attribute__((vector_size(kLanes * sizeof(double))));  // one value for each of 8 shifts

static_assert(root::kPoleCount % kLanes == 0);

// The data of a group of shifts. A row of `lower` holds the `width` elements of a column of L below the diagonal.
struct Group {
  const double* band;  // n columns of width + 1 elements
  std::size_t n;
  std::size_t width;
  const double* shifts;  // kLanes shifts
  Lanes* lower;          // (n, width)
  Lanes* pivots;         // (n,): D
  Lanes* scratch;        // (2, width + 1)
  Lanes* inverse;        // (width, width): Z at the last `width` indices, index i in row and column i mod width
  double* trace;         // kLanes: tr Z
  double* product;       // kLanes: tr(B Z)
};

// Computes B + shift I = L D L^T column by column, each column from the `width` preceding columns. Returns true if
// every pivot is positive.
FASTFID_CLONES bool factor(const Group& g) {
  const std::size_t b = g.width;
  Lanes shift;
  for (std::size_t lane = 0; lane < kLanes; ++lane) shift[lane] = g.shifts[lane];
  for (std::size_t j = 0; j < g.n; ++j) {
    const std::size_t below = std::min(b, g.n - 1 - j);
    const double* const column = g.band + j * (b + 1);
    for (std::size_t i = 0; i <= below; ++i) g.scratch[i] = Lanes{} + column[i];
    g.scratch[0] += shift;
    for (std::size_t k = j - std::min(b, j); k < j; ++k) {
      const std::size_t offset = j - k;  // row j of column k
      const Lanes* const l = g.lower + k * b + (offset - 1);
      const Lanes weight = l[0] * g.pivots[k];
      const std::size_t end = std::min(b - offset, below);
      for (std::size_t i = 0; i <= end; ++i) g.scratch[i] -= l[i] * weight;
    }
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      if (!(g.scratch[0][lane] > 0)) return false;  // NaN returns false too
    }
    g.pivots[j] = g.scratch[0];
    const Lanes reciprocal = 1.0 / g.scratch[0];
    for (std::size_t i = 0; i < below; ++i) g.lower[j * b + i] = g.scratch[i + 1] * reciprocal;
    for (std::size_t i = below; i < b; ++i) g.lower[j * b + i] = Lanes{};
  }
  return true;
}

// Z = (L D L^T)^-1 inside the band, from Z = D^-1 L^-1 - (L^T - I) Z: column j needs Z only at the indices j + 1 to j +
// width. Elements beyond the end are stored as zeros.
FASTFID_CLONES void invert(const Group& g) {
  const std::size_t b = g.width;
  Lanes* const z = g.scratch + b + 1;
  std::fill_n(g.inverse, b * b, Lanes{});
  Lanes trace{};
  Lanes product{};
  for (std::size_t j = g.n; j-- > 0;) {
    const std::size_t slot = j % b;  // the slot of j; until now the slot of j + width, which is no longer needed
    // Column j of L in the order of the slots: element j + 1 + i is stored in slot (slot + 1 + i) % b.
    const Lanes* const l = g.lower + j * b;
    const std::size_t head = b - 1 - slot;
    for (std::size_t i = 0; i < head; ++i) g.scratch[slot + 1 + i] = l[i];
    for (std::size_t i = head; i < b; ++i) g.scratch[i - head] = l[i];
    // Four rows at once, whose sums do not wait for each other.
    const double* const column = g.band + j * (b + 1);
    Lanes diagonal = 1.0 / g.pivots[j];
    for (std::size_t r = 0; r < b; r += 4) {
      const Lanes* const row = g.inverse + r * b;
      Lanes s0{}, s1{}, s2{}, s3{};
      for (std::size_t c = 0; c < b; ++c) {
        const Lanes x = g.scratch[c];
        s0 += row[c] * x;
        s1 += row[b + c] * x;
        s2 += row[2 * b + c] * x;
        s3 += row[3 * b + c] * x;
      }
      z[r] = -s0;
      z[r + 1] = -s1;
      z[r + 2] = -s2;
      z[r + 3] = -s3;
    }
    for (std::size_t c = 0; c < b; ++c) diagonal -= g.scratch[c] * z[c];
    Lanes off_diagonal{};
    for (std::size_t i = 0; i < std::min(b, g.n - 1 - j); ++i) off_diagonal += column[i + 1] * z[(slot + 1 + i) % b];
    trace += diagonal;
    product += column[0] * diagonal + 2.0 * off_diagonal;
    for (std::size_t c = 0; c < b; ++c) {
      g.inverse[slot * b + c] = z[c];
      g.inverse[c * b + slot] = z[c];
    }
    g.inverse[slot * b + slot] = diagonal;
  }
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    g.trace[lane] = trace[lane];
    g.product[lane] = product[lane];
  }
}

// The facts about a band that need no factorisation.
struct Survey {
  double trace = 0;
  double diagonal_value = 0;  // the sum of the roots of the diagonal
  double largest = 0;         // no eigenvalue is above this bound; a NaN appears in the factors
  bool is_diagonal = true;
};

Survey survey(const linalg::Band& band) {
  const std::size_t n = band.n;
  const std::size_t b = band.width;
  Survey out;
  // Gershgorin: no eigenvalue is above the largest sum of magnitudes in a row.
  std::vector<double> sums(n);
  for (std::size_t j = 0; j < n; ++j) {
    const double* const column = band.elements.data() + j * (b + 1);
    out.trace += column[0];
    out.diagonal_value += std::sqrt(column[0]);
    sums[j] += std::abs(column[0]);
    for (std::size_t i = 1; i <= std::min(b, n - 1 - j); ++i) {
      sums[j] += std::abs(column[i]);
      sums[j + i] += std::abs(column[i]);
    }
  }
  for (std::size_t j = 0; j < n; ++j) {
    out.is_diagonal = out.is_diagonal && sums[j] == std::abs(band.elements[j * (b + 1)]);
  }
  out.largest = *std::max_element(sums.begin(), sums.end());
  return out;
}

// Factors B + p I for kLanes shifts p, and returns true if all are positive definite. Then also computes tr (B + p
// I)^-1 and tr(B (B + p I)^-1) for each p, unless the pointers for these are null.
bool solve(const linalg::Band& band, const double* shifts, double* inverse_traces, double* product_traces) {
  const std::size_t n = band.n;
  const std::size_t b = band.width;
  // A Matrix is aligned for vectors. Its uninitialised elements are written before they are read.
  linalg::Matrix memory(n * b + n + 2 * (b + 1) + b * b, kLanes);
  Group g{};
  g.band = band.elements.data();
  g.n = n;
  g.width = b;
  g.shifts = shifts;
  g.lower = reinterpret_cast<Lanes*>(memory.data());
  g.pivots = g.lower + n * b;
  g.scratch = g.pivots + n;
  g.inverse = g.scratch + 2 * (b + 1);
  g.trace = inverse_traces;
  g.product = product_traces;
  const bool is_definite = factor(g);
  if (is_definite && inverse_traces != nullptr) invert(g);
  return is_definite;
}

// For each pole p: the shift, tr (B + p I)^-1 and tr(B (B + p I)^-1).
struct Poles {
  std::array<double, root::kPoleCount> shifts{};
  std::array<double, root::kPoleCount> inverse_traces{};
  std::array<double, root::kPoleCount> product_traces{};
};

// Solves for all poles. Returns true if every shifted matrix is positive definite.
bool solve_all(const linalg::Band& band, Poles& poles) {
  std::array<bool, root::kPoleCount / kLanes> is_definite{};
  parallel_for(is_definite.size(), [&](std::size_t group) {
    const std::size_t at = group * kLanes;
    is_definite[group] = solve(band, &poles.shifts[at], &poles.inverse_traces[at], &poles.product_traces[at]);
  });
  return std::all_of(is_definite.begin(), is_definite.end(), [](bool x) { return x; });
}

// The weighted sum over poles and eigenvalues of lambda / (lambda + p). The form with less cancellation is used: n - p
// tr Z for small p, and tr(B Z) for large p.
double weighted_sum(const Poles& poles, std::size_t n, double trace) {
  const auto count = static_cast<double>(n);
  double sum = 0;
  for (std::size_t k = root::kPoleCount; k-- > 0;) {
    const bool is_small = poles.shifts[k] * count < trace;
    sum += root::kWeights[k] * (is_small ? count - poles.shifts[k] * poles.inverse_traces[k] : poles.product_traces[k]);
  }
  return sum;
}

}  // namespace

BandRoot root_trace(const linalg::Band& band, double least) {
  FASTFID_EXPECT(band.width % 4 == 0 && band.width > 0 && band.n >= band.width, InvalidArgument,
                 "root_trace: expected n >= width, a multiple of 4");
  const Survey found = survey(band);
  std::array<double, kLanes> first;
  first.fill(-std::max(least, root::kLowerEnd * found.largest));
  BandRoot out;
  // This solve comes first and alone, so that a matrix that is not resolved costs little.
  if (!(std::isfinite(found.largest) && solve(band, first.data(), nullptr, nullptr))) return out;
  Poles poles;
  for (std::size_t k = 0; k < poles.shifts.size(); ++k) poles.shifts[k] = root::kPoles[k] * found.largest;
  out.is_resolved = solve_all(band, poles);
  if (!out.is_resolved) return out;
  // lambda + p <= lambda (1 + p / lambda) for the smallest pole, p = 0.018 kLowerEnd largest.
  out.reciprocals = poles.inverse_traces[0] * (1 + root::kPoles[0] / root::kLowerEnd);
  out.value = weighted_sum(poles, band.n, found.trace);
  out.value = std::sqrt(found.largest) * (out.value + root::kLinear * (found.trace / found.largest));
  // A diagonal matrix needs no approximation. For the identity the value is then n and not n (1 + 1e-15), which tests
  // of pytorch-fid's users expect.
  if (found.is_diagonal) out.value = found.diagonal_value;
  return out;
}

}  // namespace fastfid
