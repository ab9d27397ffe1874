// The k nearest rows of every row, exactly as core/distances.hpp defines distances, and roughly those beyond.
//
// Rows are float32, C-contiguous, (n, d) in host memory. Memory beside them: O(k) for each row, blocks of rows in
// float32 (4096, and 1024 for each thread), and tiles of products (2 MiB for each thread).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace fastfid {

struct Neighbours {
  std::vector<std::int64_t> indices;  // (n, count), nearest first; of equal distances the smaller index comes first
  std::vector<double> distances;      // (n, count), squared
};

// A search takes as many steps as it needs, so that a caller can stop between them:
//
//   NeighbourSearch search(x, n, nullptr, 0, d, k, 0);
//   while (search.step()) {}
//   search.kth_squared_distances();
//
// The result does not depend on the number of threads.
class NeighbourSearch {
 public:
  // The `k` nearest rows among `others` of each of n rows; with others = nullptr, among the other rows of the set
  // itself (rows of equal values count). `rough`: how many neighbours rough() has, or 0. The arrays must outlive the
  // search. n n_others d float32 multiplications and additions, half as many within one set. Throws InvalidArgument for
  // k < 1, fewer than k or `rough` rows to choose from, and d = 0 or above 2^30, and NumericalError where a row has NaN
  // or infinite values.
  NeighbourSearch(const float* rows, std::size_t n, const float* others, std::size_t n_others, std::size_t d,
                  std::size_t k, std::size_t rough);
  ~NeighbourSearch();
  NeighbourSearch(const NeighbourSearch&) = delete;
  NeighbourSearch& operator=(const NeighbourSearch&) = delete;

  // Compares about 2^36 pairs of numbers, a second or two of one core, and returns true until all have been compared.
  bool step();

  // After the last step. The k-th smallest distance of each row, (n,), and its k nearest rows.
  std::vector<double> kth_squared_distances();
  Neighbours nearest();
  // The `rough` nearest rows by distances in the middle of the bounds of float32 products, which are returned. Only
  // where a product overflows, distances are exact.
  Neighbours rough();

 private:
  class State;
  std::unique_ptr<State> state_;
};

}  // namespace fastfid
