// SPDX-License-Identifier: BSD-3-Clause
// D-optimal active set: n rows of derivatives by the n parameters, chosen so that |det A| is large. The extrapolation grade of a row b is
// gamma = max_j |(b A^-1)_j| [Podryabinkin & Shapeev, Comput. Mater. Sci. 140, 171 (2017), eq. 9]; replacing row j of A by b multiplies |det A|
// by |(b A^-1)_j|.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mtp {

// neighbourhood: a row is dV_i/dtheta of one atom. configuration: a row is dE/dtheta of a cell, divided by its number of atoms.
enum class ActiveSetMode { neighbourhood, configuration };

struct ActiveSet {
  ActiveSetMode mode = ActiveSetMode::neighbourhood;
  int n = 0;                                 // number of parameters
  std::vector<double> rows;                  // A, n x n, row-major
  std::vector<double> inverse_transposed;    // (A^-1)^T, n x n, row-major

  // An active set that knows nothing: A is diagonal, and small against the candidates (n_rows x n) column by column: 1e-6 of the largest
  // element. Directions that no candidate has, such as those that rescale a radial function, keep these rows.
  static ActiveSet blank(ActiveSetMode mode, int n, std::int64_t n_rows, const double *candidates);

  // Grade of a row b (length n).
  double grade(const double *b) const;

  // Offers candidate rows (n_rows x n). While one has a grade above `threshold` (> 1), the row of A that it improves most is replaced by it.
  // slots[k], length n: the candidate that now stands in row k of A, or -1 where the row is what it was. Returns the number of replacements.
  // Throws Error(numerical) where the rows hold NaN or where the volume does not settle.
  std::int64_t maximise_volume(std::int64_t n_rows, const double *candidates, double threshold, std::int64_t *slots);

  // Recomputes the inverse from A. Throws Error(numerical) where A is singular.
  void invert();

  // Largest |element| of A^-1 A - 1 (infinite where one is NaN): how far the inverse is from that of the rows.
  double inverse_error() const;

  // Throws Error(format) where sizes are wrong or where the stored inverse is not that of A.
  void check(const std::string &where) const;
};

}    // namespace mtp
