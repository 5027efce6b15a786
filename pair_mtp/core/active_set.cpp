// SPDX-License-Identifier: BSD-3-Clause
#include "active_set.hpp"

#include "error.hpp"

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
  std::int64_t n_swaps = 0;
  const std::int64_t most_swaps = 1000 + 100 * static_cast<std::int64_t>(n) + 10 * n_rows;
  for (bool changed = true; changed;) {
    changed = false;
    for (std::int64_t row = 0; row < n_rows; row++) {
      const double *b = candidates + row * n;
      multiply(n, inverse_transposed.data(), b, c.data());
      const int j = largest(n, c.data());
      if (!std::isfinite(c[j]))
        throw Error(Error::Kind::numerical, "candidate row " + std::to_string(row) + " of the active set holds NaN or infinity");
      if (std::fabs(c[j]) <= threshold) continue;
      // Sherman-Morrison for A += e_j (b - a_j): (A^-1)^T_k -= (c_k - delta_jk) / c_j * (A^-1)^T_j
      double *pivot = &inverse_transposed[static_cast<std::size_t>(j) * n];
      const double divisor = c[j];
      for (int i = 0; i < n; i++) scaled[i] = pivot[i] / divisor;
      for (int k = 0; k < n; k++) {
        if (k == j) continue;
        double *line = &inverse_transposed[static_cast<std::size_t>(k) * n];
        for (int i = 0; i < n; i++) line[i] -= c[k] * scaled[i];
      }
      std::copy(scaled.begin(), scaled.end(), pivot);
      std::copy(b, b + n, &rows[static_cast<std::size_t>(j) * n]);
      slots[j] = row;
      changed = true;
      if (++n_swaps % n == 0) invert();    // rounding errors of the updates do not pile up
      if (n_swaps > most_swaps) throw Error(Error::Kind::numerical, "the volume of the active set does not settle: candidates are degenerate");
    }
    if (changed) invert();
  }
  return n_swaps;
}

void ActiveSet::invert()
{
  // Gauss-Jordan with partial pivoting, after columns and then rows were scaled to a largest element of one
  const std::size_t size = n;
  std::vector<double> a(rows), inverse(size * size, 0.0), column_scale(size, 0.0);
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
    inverse[i * size + i] = 1 / norm;
  }
  for (std::size_t column = 0; column < size; column++) {
    std::size_t pivot = column;
    for (std::size_t i = column + 1; i < size; i++)
      if (std::fabs(a[i * size + column]) > std::fabs(a[pivot * size + column])) pivot = i;
    const double value = a[pivot * size + column];
    if (!(std::fabs(value) > 0)) throw Error(Error::Kind::numerical, "the active set is singular: its rows are linearly dependent");
    if (pivot != column) {
      std::swap_ranges(&a[pivot * size], &a[pivot * size] + size, &a[column * size]);
      std::swap_ranges(&inverse[pivot * size], &inverse[pivot * size] + size, &inverse[column * size]);
    }
    for (std::size_t j = 0; j < size; j++) {
      a[column * size + j] /= value;
      inverse[column * size + j] /= value;
    }
    for (std::size_t i = 0; i < size; i++) {
      const double factor = a[i * size + column];
      if (i == column || factor == 0) continue;
      for (std::size_t j = column; j < size; j++) a[i * size + j] -= factor * a[column * size + j];
      for (std::size_t j = 0; j < size; j++) inverse[i * size + j] -= factor * inverse[column * size + j];
    }
  }
  for (std::size_t i = 0; i < size; i++)
    for (std::size_t j = 0; j < size; j++) inverse_transposed[j * size + i] = inverse[i * size + j] / column_scale[i];
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
