// SPDX-License-Identifier: BSD-3-Clause
#include "active_set.hpp"

#include "error.hpp"
#include "simd.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace mtp {
namespace {

// y = M x for a row-major n x n matrix.
void multiply(int n, const double *matrix, const double *x, double *y)
{
  for (int row = 0; row < n; row++) {
    double partial[8] = {};
    int i = 0;
    const double *m = matrix + static_cast<std::size_t>(row) * n;
    for (; i + 8 <= n; i += 8)
      for (int lane = 0; lane < 8; lane++) partial[lane] += m[i + lane] * x[i + lane];
    double sum = 0;
    for (; i < n; i++) sum += m[i] * x[i];
    for (double p : partial) sum += p;
    y[row] = sum;
  }
}

constexpr int batch = 8;    // groups of eight candidates that share each reading of the inverse

// Coefficients of 8 n_groups rows: c[g][j][lane] = sum_i M[j][i] b[g][i][lane] for a row-major n x n matrix M.
struct Coefficients {
  template <class T> static MTP_FUNCTION void run(int n, int n_groups, const double *matrix, const double *rows, double *coefficients)
  {
    constexpr int height = 8;
    for (int first = 0; first < n; first += height) {
      const int end = std::min(n, first + height);
      for (int g = 0; g < n_groups; g++) {
        const T *const b = reinterpret_cast<const T *>(rows) + static_cast<std::size_t>(g) * n;
        T *const c = reinterpret_cast<T *>(coefficients) + static_cast<std::size_t>(g) * n;
        if (end - first == height) {
          T sum[height] = {};
          for (int i = 0; i < n; i++)
            for (int j = 0; j < height; j++) sum[j] += b[i] * matrix[static_cast<std::size_t>(first + j) * n + i];
          for (int j = 0; j < height; j++) c[first + j] = sum[j];
        } else
          for (int j = first; j < end; j++) {
            T sum = {};
            for (int i = 0; i < n; i++) sum += b[i] * matrix[static_cast<std::size_t>(j) * n + i];
            c[j] = sum;
          }
      }
    }
  }
};

// What row j of A being replaced by a row of coefficients d does to the coefficients of others: c -= c_j / d_j (d - e_j).
struct Exchange {
  template <class T> static MTP_FUNCTION void run(int n, int n_groups, int j, const double *d, double *coefficients)
  {
    for (int g = 0; g < n_groups; g++) {
      T *const c = reinterpret_cast<T *>(coefficients) + static_cast<std::size_t>(g) * n;
      const T share = c[j] * (1 / d[j]);
      for (int k = 0; k < n; k++) c[k] -= share * d[k];
      c[j] = share;
    }
  }
};

// Subtracts factors[k] pivot from every row k of a row-major n x n matrix but row `skip`.
struct Elimination {
  template <class T> static MTP_FUNCTION void run(int n, int skip, const double *factors, const double *pivot, double *matrix)
  {
    for (int k = 0; k < n; k++) {
      if (k == skip) continue;
      double *const line = matrix + static_cast<std::size_t>(k) * n;
      const double factor = factors[k];
      for (int i = 0; i < n; i++) line[i] -= factor * pivot[i];
    }
  }
};

// The place of the largest |c|, or of one that is not a number.
int largest(int n, const double *c)
{
  int best = 0;
  for (int j = 0; j < n; j++) {
    if (std::isnan(c[j])) return j;
    if (std::fabs(c[j]) > std::fabs(c[best])) best = j;
  }
  return best;
}

}    // namespace

ActiveSet ActiveSet::blank(ActiveSetMode mode, int n, std::int64_t n_rows, const double *candidates)
{
  std::vector<double> largest_of(n, 0.0);
  for (std::int64_t row = 0; row < n_rows; row++)
    for (int i = 0; i < n; i++) largest_of[i] = std::max(largest_of[i], std::fabs(candidates[row * n + i]));
  ActiveSet set;
  set.mode = mode;
  set.n = n;
  set.rows.assign(static_cast<std::size_t>(n) * n, 0.0);
  set.inverse_transposed = set.rows;
  for (int i = 0; i < n; i++) {
    const double scale = 1e-6 * (largest_of[i] > 0 && std::isfinite(largest_of[i]) ? largest_of[i] : 1.0);
    set.rows[static_cast<std::size_t>(i) * n + i] = scale;
    set.inverse_transposed[static_cast<std::size_t>(i) * n + i] = 1 / scale;
  }
  return set;
}

double ActiveSet::grade(const double *b) const
{
  thread_local std::vector<double> c;
  c.resize(n);
  multiply(n, inverse_transposed.data(), b, c.data());
  return std::fabs(c[largest(n, c.data())]);
}

std::int64_t ActiveSet::maximise_volume(std::int64_t n_rows, const double *candidates, double threshold, std::int64_t *slots)
{
  if (!(threshold > 1)) throw Error(Error::Kind::argument, "the swap threshold must be above 1 (1.001 is usual)");
  std::fill(slots, slots + n, std::int64_t(-1));
  std::vector<double> c(n), scaled(n);
  Scratch<double> rows_of_batch, coefficients;
  rows_of_batch.require(static_cast<std::size_t>(batch) * n * pack_width);
  coefficients.require(static_cast<std::size_t>(batch) * n * pack_width);
  std::int64_t n_swaps = 0;
  const std::int64_t most_swaps = 1000 + 100 * static_cast<std::int64_t>(n) + 10 * n_rows;
  for (bool changed = true; changed;) {
    changed = false;
    for (std::int64_t first = 0; first < n_rows; first += batch * pack_width) {
      const int size = static_cast<int>(std::min<std::int64_t>(batch * pack_width, n_rows - first));
      const int n_groups = (size + pack_width - 1) / pack_width;
      std::fill_n(rows_of_batch.get(), static_cast<std::size_t>(n_groups) * n * pack_width, 0.0);
      const auto place = [&](int row, int i) { return (static_cast<std::size_t>(row / pack_width) * n + i) * pack_width + row % pack_width; };
      for (int row = 0; row < size; row++)
        for (int i = 0; i < n; i++) rows_of_batch.get()[place(row, i)] = candidates[(first + row) * n + i];
      on_best_vectors<Coefficients>(n, n_groups, inverse_transposed.data(), rows_of_batch.get(), coefficients.get());
      for (int row = 0; row < size; row++) {
        for (int k = 0; k < n; k++) c[k] = coefficients.get()[place(row, k)];
        const int j = largest(n, c.data());
        if (!std::isfinite(c[j]))
          throw Error(Error::Kind::numerical, "candidate row " + std::to_string(first + row) + " of the active set holds NaN or infinity");
        if (std::fabs(c[j]) <= threshold) continue;
        on_best_vectors<Exchange>(n, n_groups, j, c.data(), coefficients.get());
        // Sherman-Morrison for A += e_j (b - a_j): (A^-1)^T_k -= (c_k - delta_jk) / c_j * (A^-1)^T_j
        double *pivot = &inverse_transposed[static_cast<std::size_t>(j) * n];
        for (int i = 0; i < n; i++) scaled[i] = pivot[i] / c[j];
        on_best_vectors<Elimination>(n, j, c.data(), scaled.data(), inverse_transposed.data());
        std::copy(scaled.begin(), scaled.end(), pivot);
        std::copy_n(candidates + (first + row) * n, n, &rows[static_cast<std::size_t>(j) * n]);
        slots[j] = first + row;
        changed = true;
        if (++n_swaps % n == 0) invert();    // rounding errors of the updates do not pile up
        if (n_swaps > most_swaps) throw Error(Error::Kind::numerical, "the volume of the active set does not settle: candidates are degenerate");
      }
    }
    if (changed) invert();
  }
  return n_swaps;
}

void ActiveSet::invert()
{
  // Gauss-Jordan in place with partial pivoting, after columns and then rows were scaled to a largest element of one
  const std::size_t size = n;
  std::vector<double> a(rows), column_scale(size, 0.0), row_scale(size), factors(size);
  std::vector<std::size_t> pivots(size);
  for (std::size_t i = 0; i < size; i++)
    for (std::size_t j = 0; j < size; j++) column_scale[j] = std::max(column_scale[j], std::fabs(a[i * size + j]));
  for (std::size_t i = 0; i < size; i++) {
    double norm = 0;
    bool finite = true;
    for (std::size_t j = 0; j < size; j++) {
      finite = finite && std::isfinite(a[i * size + j]);
      if (column_scale[j] > 0) a[i * size + j] /= column_scale[j];
      norm = std::max(norm, std::fabs(a[i * size + j]));
    }
    if (!(norm > 0) || !finite) throw Error(Error::Kind::numerical, "row " + std::to_string(i) + " of the active set is zero or not finite");
    for (std::size_t j = 0; j < size; j++) a[i * size + j] /= norm;
    row_scale[i] = norm;
  }
  for (std::size_t column = 0; column < size; column++) {
    std::size_t pivot = column;
    for (std::size_t i = column + 1; i < size; i++)
      if (std::fabs(a[i * size + column]) > std::fabs(a[pivot * size + column])) pivot = i;
    double *const line = &a[column * size];
    if (pivot != column) std::swap_ranges(&a[pivot * size], &a[pivot * size] + size, line);
    pivots[column] = pivot;
    const double value = line[column];
    if (!(std::fabs(value) > 0)) throw Error(Error::Kind::numerical, "the active set is singular: its rows are linearly dependent");
    line[column] = 1;
    for (std::size_t j = 0; j < size; j++) line[j] /= value;
    for (std::size_t i = 0; i < size; i++) {
      factors[i] = a[i * size + column];
      if (i != column) a[i * size + column] = 0;
    }
    on_best_vectors<Elimination>(n, static_cast<int>(column), factors.data(), static_cast<const double *>(line), a.data());
  }
  for (std::size_t column = size; column-- > 0;)
    if (pivots[column] != column)
      for (std::size_t i = 0; i < size; i++) std::swap(a[i * size + column], a[i * size + pivots[column]]);
  for (std::size_t i = 0; i < size; i++)
    for (std::size_t j = 0; j < size; j++) inverse_transposed[j * size + i] = a[i * size + j] / column_scale[i] / row_scale[j];
}

double ActiveSet::inverse_error() const
{
  std::vector<double> c(n);
  double worst = 0;
  for (int i = 0; i < n; i++) {
    multiply(n, inverse_transposed.data(), &rows[static_cast<std::size_t>(i) * n], c.data());
    c[i] -= 1;
    for (double value : c) worst = std::max(worst, std::isnan(value) ? std::numeric_limits<double>::infinity() : std::fabs(value));
  }
  return worst;
}

void ActiveSet::check(const std::string &where) const
{
  const std::size_t size = static_cast<std::size_t>(n) * n;
  if (rows.size() != size || inverse_transposed.size() != size) throw Error(Error::Kind::format, where + ": the active set has the wrong size");
  if (inverse_error() >= 1e-2)
    throw Error(Error::Kind::format, where + ": the active set is damaged: its stored inverse is not the inverse of its rows");
}

}    // namespace mtp
