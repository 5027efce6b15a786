// SPDX-License-Identifier: BSD-3-Clause
// What a fit needs: derivatives of an atom's gradient by the parameters, d^2 V_i / (dtheta dr_ij).
//
// With D_k = dV/dm_k, dV/dr_j = sum_k D_k dm_k/dr_j, hence for a parameter theta
//   d^2 V/(dtheta dr_j) = sum_k (dD_k/dtheta) dm_k/dr_j + sum_k D_k d^2 m_k/(dtheta dr_j).
// The first sum is one matrix product over all parameters; the second exists for radial coefficients only and is local to a neighbour.
#pragma once

#include "sites.hpp"

namespace mtp {

class MixedDerivatives : public Sites<double> {
 public:
  explicit MixedDerivatives(const PlanView &view) : Sites<double>(view) {}

  // After evaluate(true): mixed[n_neighbours][3][n], neighbours in the order of for_each_neighbour. The n parameters are the active ones
  // (n_active), or with `linear_only` those from the species coefficient on.
  void compute(bool linear_only, Scratch<double> &mixed);
  int n_parameters(bool linear_only) const { return n_active() - (linear_only ? n_radial_active() : 0); }

 private:
  int n_neighbours = 0;
  std::vector<std::size_t> slots;    // of the neighbours
  std::vector<int> neighbour_species;
  Scratch<double> tangent, adjoint_tangent, sums, adjoint_by_parameter, moment_gradient, monomial_store, padded;

  const double *mono_of(int neighbour) const { return monomial_store.get() + static_cast<std::size_t>(neighbour) * plan.n_monomials; }
  void tabulate_monomials();
  void differentiate_adjoint_by_linear(int first_column, int stride);
  void differentiate_adjoint_by_radial(int stride);
  void differentiate_moments();
  void add_explicit_radial_part(int stride);
};

}    // namespace mtp
