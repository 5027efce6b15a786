// SPDX-License-Identifier: BSD-3-Clause
// Evaluates one neighbourhood at a time: site energy, its gradient by the neighbours' positions, by the parameters, and by both. Owns the scratch
// of one thread; the plan that it reads is shared.
#pragma once

#include "plan.hpp"

#include <vector>

namespace mtp {

// The neighbourhood of one atom. Neighbours at or beyond the cutoff are ignored.
struct Neighbourhood {
  int species;                     // of the centre, 0 ... n_species - 1
  int n_neighbours;
  const int *neighbour_species;    // [n_neighbours]
  const double *vectors;           // [n_neighbours][3]: r_ij = r_j - r_i
};

class Evaluator {
 public:
  explicit Evaluator(const Plan &plan) : plan(plan.view()) {}

  // V_i; gradient[j][3] = dV_i/dr_ij (zero for neighbours beyond the cutoff)
  double energy(const Neighbourhood &atom, double *gradient);

  // row[n_parameters] = dV_i/dtheta. Uses what energy() left behind: call it right after, with the same neighbourhood.
  void parameter_gradient(const Neighbourhood &atom, double *row);

  // Mixed derivatives d^2 V_i / (dtheta dr_ij), after energy() with the same neighbourhood:
  // mixed[3 n_neighbours][n_active] for the n_active parameters that an atom of this species has: unless `linear_only`, the radial coefficients
  // of its pairs (n_radial_active, from parameter `first_radial` on), then the moment coefficients (n_scalar).
  void mixed_gradient(const Neighbourhood &atom, bool linear_only, double *mixed);
  int n_radial_active() const { return plan.n_species * plan.n_radial * plan.n_chebyshev; }
  int n_scalar() const { return plan.n_scalar; }
  int first_radial(int species) const { return species * n_radial_active(); }
  int first_moment() const { return plan.n_parameters - plan.n_scalar; }

 private:
  PlanView plan;
  int n_inside = 0;
  std::vector<int> inside;    // neighbours within the cutoff
  std::vector<double> distance, unit, mono, phi, dphi, f, df, moments, adjoint, value, slope, angular;
  std::vector<double> tangent, adjoint_tangent, sums;    // read as packs
  std::vector<double> adjoint_by_parameter, moment_gradient, padded_row;

  void place_neighbours(const Neighbourhood &atom);
  void differentiate_adjoint_by_radial(const Neighbourhood &atom, int width);
  void add_explicit_radial_part(const Neighbourhood &atom, int width);
};

}    // namespace mtp
