// SPDX-License-Identifier: BSD-3-Clause
// The short-range guard that a potential may carry. Of each pair of species it knows two windows of distance, each with a switch s(r) that falls from
// 1 at the inner to 0 at the outer distance with two continuous derivatives:
//   repulsion   V_i gets sum_j s(r) E_ZBL(r) / 2
//   fade        the radial functions of the MTP are multiplied by 1 - s(r): no Chebyshev series runs away where there were no training data
// E_ZBL is the universal screened nuclear repulsion of Ziegler, Biersack and Littmark, The Stopping and Range of Ions in Solids (Pergamon, 1985); its
// constants are those of the documentation of LAMMPS' pair_style zbl, e^2 / (4 pi epsilon_0) is CODATA's of 2018.
#pragma once

#include "function.hpp"
#include "simd.hpp"

#include <cmath>
#include <string>
#include <vector>

namespace mtp {

// Angstrom
struct Window {
  double inner, outer;

  bool operator==(const Window &other) const { return inner == other.inner && outer == other.outer; }
};

struct PairGuard {
  Window repulsion, fade;

  bool operator==(const PairGuard &other) const { return repulsion == other.repulsion && fade == other.fade; }
};

struct Guard {
  std::vector<PairGuard> pairs;    // [z_i][z_j], symmetric

  bool operator==(const Guard &other) const { return pairs == other.pairs; }

  // Whether it does anything beyond the cutoff, but for rounding: files hold 16 digits of a cutoff.
  bool passes(double cutoff) const;

  // Whether the repulsion of some pair acts where its fade does not: whoever does not know the guard misreads such a potential everywhere.
  bool acts_in_training_range() const;

  // Throws Error(format): distances must be finite and in order, the table symmetric, and each element one that has a nuclear charge.
  void check(const std::vector<std::string> &elements, int n_species) const;
};

// "0-0:repulsion inner,outer,fade inner,outer;0-1:..." for each unordered pair. Reads back exactly. parse_guard throws Error(format).
std::string text_of(const Guard &guard, int n_species);
Guard parse_guard(const std::string &text, int n_species);

constexpr double held_depth = 0.25;

// What the kernel knows of the repulsion of a pair
struct Repulsion {
  Window window;
  double charges;              // Z_i Z_j e^2 / (4 pi epsilon_0), eV Angstrom
  double inverse_screening;    // 1 / Angstrom
};

// throws Error(format) for names that are no element's
Repulsion repulsion_between(const std::string &element_i, const std::string &element_j, const Window &window);

// s(r) and its derivative: exactly 0 from the outer distance on, exactly 1 well within the inner one
template <class T> MTP_FUNCTION void switch_function(const Window &window, T r, T *value, T *slope)
{
  const double over_width = 1 / (window.outer - window.inner);
  const T x = clamped_to_unit((r * -1.0 + window.outer) * over_width), square = x * x, rest = x * -1.0 + 1.0;
  *value = square * x * (square * 6.0 + x * -15.0 + 10.0);
  *slope = square * rest * rest * (-30 * over_width);
}

// The distance rho(r) at which the polynomials of a fading pair are taken, and its derivative: r from the outer distance on, and not further below it
// than held_depth / 2 times the width of the window, with three continuous derivatives
template <class T> MTP_FUNCTION void held_distance(const Window &window, T r, T *value, T *slope)
{
  const double width = held_depth * (window.outer - window.inner);
  const T x = clamped_to_unit((r * -1.0 + window.outer) * (1 / width)), square = x * x;
  *value = larger_size(r, T{} + window.outer) - (x - square * square * (square + x * -3.0 + 2.5)) * width;
  *slope = square * x * (square * -6.0 + x * 15.0 + -10.0) + 1.0;
}

// s(r) E_ZBL(r) and its derivative
MTP_FUNCTION void switched_repulsion(const Repulsion &pair, double r, double *value, double *slope)
{
  constexpr double weights[4] = {0.18175, 0.50986, 0.28022, 0.02817}, decays[4] = {3.19980, 0.94229, 0.40290, 0.20162};
  double screening = 0, dscreening = 0;
  for (int k = 0; k < 4; k++) {
    const double decay = decays[k] * pair.inverse_screening, term = weights[k] * std::exp(-decay * r);
    screening += term;
    dscreening -= decay * term;
  }
  const double coulomb = pair.charges / r;
  double s, ds;
  switch_function(pair.window, r, &s, &ds);
  *value = s * coulomb * screening;
  *slope = coulomb * (ds * screening + s * (dscreening - screening / r));
}

}    // namespace mtp
