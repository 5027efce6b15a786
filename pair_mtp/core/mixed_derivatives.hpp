// SPDX-License-Identifier: BSD-3-Clause
// What a Gauss-Newton step of a fit needs: derivatives of a configuration's energy, forces and virial by the parameters.
//
// With D_k = dV/dm_k, dV/dr_j = sum_k D_k dm_k/dr_j, hence for a parameter theta
//   d^2 V/(dtheta dr_j) = sum_k (dD_k/dtheta) dm_k/dr_j + sum_k D_k d^2 m_k/(dtheta dr_j).
// The first sum is a matrix product, (rows: neighbours' gradients, their sum, the virial) x (k) x (theta), added into the Jacobian as it is formed;
// the second exists for radial coefficients only and is local to a neighbour.
#pragma once

#include "sites.hpp"

#include <vector>

namespace mtp {

// Rows of a configuration's Jacobian, `stride` apart: energy; forces, three for each atom; virial xx yy zz yz xz xy.
struct JacobianRows {
  double *energy, *forces, *virial;
  std::ptrdiff_t stride;
};

// Eight columns of dD_k/dtheta, a table [summed moment][8]: the first n of them count, and stand from `column` on in a row of the Jacobian.
struct Panel {
  std::ptrdiff_t column;
  int n;
};

class MixedDerivatives : public Sites<Lane8> {
 public:
  // linear_only: by the species and moment coefficients, else by all parameters.
  MixedDerivatives(const PlanView &view, bool linear_only);

  // After evaluate(true): what the atoms of the group share.
  void prepare();
  // Adds what the atom in a lane, atom `index` of its configuration, contributes; its neighbours were named by their indices.
  void add(int lane, int index, const JacobianRows &rows);

 private:
  struct RadialPanel {
    int species, mu, first_beta;
  };
  // d u^p / du_i = factor[i] u^(lower[i])
  struct MonomialSlope {
    int lower[3];
    double factor[3];
  };
  static constexpr int n_sums = 9;    // rows after those of the neighbours: their sum (3), the virial (6)

  bool linear_only;
  int n_chebyshev_padded;
  std::vector<MonomialSlope> slopes;
  std::vector<RadialPanel> radial_panels;
  // of eight scalars: the products that they are made of, and all moments that the sweep back through these touches
  struct ScalarPanel {
    std::vector<Target> targets;
    std::vector<int> touched;
  };
  std::vector<ScalarPanel> scalar_panels;
  std::vector<Panel> panels;

  // of the atom at work; neighbours in lanes, n_padded of them
  int n_neighbours = 0, n_padded = 0;
  std::vector<int> first_of_species;
  std::vector<double *> destinations;
  Scratch<double> parameter_rows, m, adjoints, geometry, monomial_store, angular_store, moment_gradient, tables, tangent, change, sums, series;

  int row_stride() const { return 3 * n_padded + 16; }
  void tabulate_slopes();
  void find_targets();
  void gather(int lane);
  void point_to(int lane, int index, const JacobianRows &rows);
  void tabulate_radial_basis();
  void differentiate_adjoint_by_linear(double *table);
  void differentiate_adjoint_by_radial(double *table);

  friend struct DifferentiateMoments;
  friend struct AddExplicitRadialPart;
  friend struct SumOfRadialBasis;
};

}    // namespace mtp
