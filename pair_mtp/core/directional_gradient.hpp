// SPDX-License-Identifier: BSD-3-Clause
// The gradient of a fit's loss by all parameters, for a few times the cost of the forces: the errors of energy, forces and virial define a weight a
// and directions v_ij, and the gradient sought is that of a V_i + sum_j v_ij . dV_i/dr_ij (forward over reverse: the sweeps with their tangents).
#pragma once

#include "sites.hpp"

namespace mtp {

class DirectionalGradient : public Sites<Lane8> {
 public:
  explicit DirectionalGradient(const PlanView &view);

  // After offer(): direction(j, r, v) sets v for the neighbour j at r.
  template <class Direction> void set_directions(int lane, const Direction &direction)
  {
    for (int z = 0; z < plan.n_species; z++)
      for (int n = 0; n < count[z * width + lane]; n++) {
        const std::size_t slot = static_cast<std::size_t>(z) * capacity + n, at = slot * width + lane;
        const double r[3] = {xs[at], ys[at], zs[at]};
        double v[3];
        direction(indices[at], r, v);
        for (int i = 0; i < 3; i++) reinterpret_cast<double *>(gradients + 3 * slot + i)[lane] = v[i];
      }
  }

  // Adds the group's part to gradient[n_parameters]; energy_weights: a of each lane, 0 where it has no atom.
  void add_gradient(const double *energy_weights, double *gradient);

 private:
  Scratch<double> tangents, sums;

  void pad_directions();

  friend struct ForwardOverReverse;
};

}    // namespace mtp
