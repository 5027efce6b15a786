// SPDX-License-Identifier: BSD-3-Clause
// What the kernels execute: a potential's tables in the layout that the sweeps read, compiled once after a file is read or coefficients change.
//
// On the unit sphere u_z^2 = 1 - u_x^2 - u_y^2, so that of the moments with a radial function mu only those with u_z^0 and u_z^1 are summed over the
// neighbours (2 nu + 1 of degree nu, in place of (nu + 1)(nu + 2) / 2). The others follow from them atom by atom ("expansions"):
//   m_(mu, a, b, c) = m_(mu, a, b, c-2) - m_(mu, a+2, b, c-2) - m_(mu, a, b+2, c-2)
//
// Monomials u_x^a u_y^b u_z^c of the unit vector u = (r_j - r_i) / r come degree by degree: first c = 0, b = 0 ... nu, then c = 1, b = 0 ... nu - 1.
// The former are those of degree nu - 1 without u_z times u_x (the first) and u_y (all), the latter the same times u_z: every loop is contiguous.
// Moments: the summed ones in the order of their monomials, for each the radial functions that its degree has; then all others.
#pragma once

#include "function.hpp"
#include "potential.hpp"

#include <vector>

namespace mtp {

constexpr int max_degree = 64;
constexpr double same_place = 1e-6;    // Angstrom: closer, the direction from one atom to the other is rounding error

MTP_FUNCTION constexpr int monomials_of_degree(int nu)
{
  return 2 * nu + 1;
}

// m[t] = m[p] - m[q] - m[s]
struct Expansion {
  int t, p, q, s;
};

// m[t] = sum of its rows c m[p] m[q]; rows of a target follow one another, or are Plan::interleaved().
struct Target {
  int t, first_row, n_rows;
};

struct alignas(16) Row {
  int p, q;
  double c;
};

// Where the energy and inner targets read moment k, turned around for its adjoint D[k] = dV/dm[k]:
//   D[k] = c + sum of n_outer rows c' m[q] + sum of n_inner rows D[p] c' m[q], p being the target that the row belongs to
struct Use {
  int k, first_outer, n_outer, first_inner, n_inner;
  double c;
};

// Entries of a table that can be computed at the same time: level l, 0 ... n - 1, is first[l] ... first[l + 1] - 1 and reads what the levels before
// it computed.
struct Levels {
  int n;
  const int *first;
};

// Borrowed pointers and counts, the only thing a kernel sees. Valid as long as the Plan lives (or the device copies that it points to).
struct PlanView {
  int n_species, n_radial, n_chebyshev, n_moments, n_scalar, n_parameters;
  int n_monomials, n_summed;    // monomials, and the moments that are sums over neighbours
  int highest_degree;
  int n_mu[max_degree + 1];    // radial functions of the moments of a degree, not more than of the degree below
  double cutoff, min_distance, scaling;

  const int *first_moment;    // [n_monomials + 1], of those that are sums of monomial k

  const double *radial_series;                   // [z_i][z_j][mu][beta]: coefficients of T_beta in f_mu / (scaling (r - cutoff)^2)
  const double *radial_slopes;                   // the same of its derivative by r
  const float *single_series, *single_slopes;    // the same numbers in single precision
  const double *species_coeffs;                  // [z_i]
  const double *moment_coeffs;                   // [alpha]
  const int *scalars;                            // moment of scalar alpha

  // The guard, [z_i][z_j]; null without one. Beyond its reach, 0 without a guard, neither of the two does anything.
  const Window *fades;
  const Repulsion *repulsions;
  double fade_reach, repulsion_reach;

  int n_expansions, n_targets;
  const Expansion *expansions;
  const Target *targets;    // in order of execution, all moments that are products
  const Row *rows;
  // The same for the energy alone: targets of which others are made, then rows that go into the energy only, c = coefficient times moment_coeffs
  int n_inner_targets, n_outer_rows, n_uses;
  const Target *inner_targets;
  const Row *outer_rows;
  const Use *uses;    // in an order in which adjoints can be computed
  const Row *use_rows;
  Levels expansion_levels, target_levels, inner_target_levels, use_levels;    // for teams of threads
};

class Plan {
 public:
  explicit Plan(const Potential &potential);
  PlanView view() const
  {
    return placed([](const auto &table) { return table.data(); });
  }

  // The same for `lanes` threads that work side by side on what can be computed at the same time, from the beginning of each level on: rows of a
  // target are that far apart, so that those that the threads read together are neighbours.
  Plan interleaved(int lanes) const;

  // place(table): where kernels find a copy of a std::vector<...>, for instance in the memory of a device
  template <class Place> PlanView placed(const Place &place) const
  {
    PlanView v = counts;
    const auto levels = [&](const std::vector<int> &first) { return Levels{static_cast<int>(first.size()) - 1, place(first)}; };
    v.first_moment = place(first_moment);
    v.radial_series = place(radial_series);
    v.radial_slopes = place(radial_slopes);
    v.single_series = place(single_series);
    v.single_slopes = place(single_slopes);
    v.species_coeffs = place(species_coeffs);
    v.moment_coeffs = place(moment_coeffs);
    v.scalars = place(scalars);
    v.fades = fades.empty() ? nullptr : place(fades);
    v.repulsions = place(repulsions);
    v.expansions = place(expansions);
    v.targets = place(targets);
    v.rows = place(rows);
    v.inner_targets = place(inner_targets);
    v.outer_rows = place(outer_rows);
    v.uses = place(uses);
    v.use_rows = place(use_rows);
    v.expansion_levels = levels(expansion_levels);
    v.target_levels = levels(target_levels);
    v.inner_target_levels = levels(inner_target_levels);
    v.use_levels = levels(use_levels);
    return v;
  }

 private:
  PlanView counts{};
  std::vector<double> radial_series, radial_slopes, species_coeffs, moment_coeffs;
  std::vector<float> single_series, single_slopes;
  std::vector<Window> fades;
  std::vector<Repulsion> repulsions;
  std::vector<int> moment_of;    // of the file's moments
  std::vector<int> depth;        // of a moment: 0 for sums and expansions of sums, one more than that of its factors for products
  std::vector<int> scalars, first_moment;
  std::vector<int> expansion_levels, target_levels, inner_target_levels, use_levels;
  std::vector<Expansion> expansions;
  std::vector<Target> targets, inner_targets;
  std::vector<Use> uses;
  std::vector<Row> rows, outer_rows, use_rows;

  void lay_out_basic_moments(const Basis &basis);
  void order_products(const Basis &basis);
  void split_off_energy();
  void collect_uses(const std::vector<double> &coefficient);
  void expand_radial_functions(const Potential &potential);
  void tabulate_guard(const Potential &potential);
};

}    // namespace mtp
