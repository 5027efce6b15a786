// SPDX-License-Identifier: BSD-3-Clause
// Evaluates as many atoms of one species at once as the lane type T has lanes: site energies, their gradients by the neighbours' positions and, where
// asked, by the parameters. Owns the scratch of one thread; the plan that it reads is shared and must outlive it.
//
// Neighbours are sorted by species into slots, so that all lanes of a slot have the same radial functions; lanes with fewer neighbours are padded
// with weightless ones at the cutoff.
#pragma once

#include "error.hpp"
#include "plan.hpp"
#include "simd.hpp"

#include <vector>

namespace mtp {

// What went wrong with the atom in a lane.
struct SiteError : Error {
  int lane;
  SiteError(int l, const std::string &what) : Error(Kind::numerical, what), lane(l) {}
};

// A neighbour's species, and what the caller knows it by.
struct Named {
  int species, index;
};

template <class T> class Sites {
 public:
  static constexpr int width = lanes<T>;

  explicit Sites(const PlanView &view);

  // A new group of atoms of this species with at most `most_neighbours` offered to each.
  void begin(int species, int most_neighbours);

  // Offers neighbours to the atom in a lane; those closer than the cutoff count. neighbour(k, r), k = 0 ... n - 1, sets r = r_j - r_i and returns
  // the species of j (negative: left out) and the caller's name for it.
  template <class Neighbour> void offer(int lane, int n, const Neighbour &neighbour)
  {
    // members in local variables: the stores below might change them for all that the compiler knows
    double *const x = xs, *const y = ys, *const z = zs;
    int *const names = indices, *const counts = &count[lane];
    const double limit = cutoff_squared;
    const std::size_t stride = capacity;
    double least = least_squared;
    for (int k = 0; k < n; k++) {
      double r[3];
      const Named named = neighbour(k, r);
      if (named.species < 0) continue;
      const double squared = r[0] * r[0] + r[1] * r[1] + r[2] * r[2];
      int &filled = counts[named.species * width];
      const std::size_t at = (named.species * stride + filled) * width + lane;
      x[at] = r[0], y[at] = r[1], z[at] = r[2];
      names[at] = named.index;
      least = squared < least ? squared : least;
      filled += !(squared >= limit);    // NaN counts, to be found by evaluate()
    }
    least_squared = least;
  }

  // all_scalars: also the basis functions one by one, for parameter_gradient. Throws SiteError for coinciding atoms and for what is not finite.
  void evaluate(bool all_scalars);

  double energy(int lane) const { return energies[lane]; }

  // Calls action(index, r, g) for every neighbour of the atom in a lane: r_ij[3] and dV_i/dr_ij[3].
  template <class Action> void for_each_neighbour(int lane, const Action &action) const
  {
    for (int z = 0; z < plan.n_species; z++)
      for (int n = 0; n < count[z * width + lane]; n++) {
        const std::size_t slot = static_cast<std::size_t>(z) * capacity + n, at = slot * width + lane;
        const double r[3] = {xs[at], ys[at], zs[at]};
        const double g[3] = {gradient_of(slot, 0, lane), gradient_of(slot, 1, lane), gradient_of(slot, 2, lane)};
        action(indices[at], r, g);
      }
  }

  // After evaluate(true): dV_i/dtheta of the parameters that an atom of this species has, [n_active][lane]: radial coefficients of its pairs
  // [z_j][mu][beta], its species coefficient, the moment coefficients.
  void parameter_gradient(double *rows);
  int n_active() const { return n_radial_active() + 1 + plan.n_scalar; }
  int n_radial_active() const { return plan.n_species * plan.n_radial * plan.n_chebyshev; }
  // The place of active parameter k of a species among all parameters.
  int place_of_active(int species, int k) const
  {
    if (k < n_radial_active()) return species * n_radial_active() + k;
    return k == n_radial_active() ? plan.n_parameters - plan.n_scalar - plan.n_species + species
                                  : plan.n_parameters - plan.n_scalar + k - n_radial_active() - 1;
  }

  std::size_t bytes() const;

 protected:
  PlanView plan;              // its fades are there only while a neighbour of the group is near enough for them
  const Window *all_fades;    // [z_i][z_j], null without a guard
  int species = 0;
  std::size_t capacity = 0;
  double cutoff_squared, least_squared = 0;
  std::vector<int> n_slots;    // [z], the longest lane's, a multiple of `block`
  Scratch<double> coordinates, scratch;
  Scratch<int> index_store;
  double *xs = nullptr, *ys = nullptr, *zs = nullptr;
  int *count = nullptr, *indices = nullptr;    // count: [z][lane], in lines of the cache that no other thread writes to
  alignas(64) double energies[width];

  // [slot] unit vectors, 1/r, distance, radial functions and slopes, angular parts, gradients; then [moment], [monomial][block], [bar][block]
  T *unit, *inverse, *distance, *f, *df, *angular, *gradients, *moments, *adjoint, *mono, *bar, *polynomials;

  static double &lane_of(T *lanes, int lane) { return reinterpret_cast<double *>(lanes)[lane]; }
  double gradient_of(std::size_t slot, int axis, int lane) const { return lane_of(gradients + 3 * slot + axis, lane); }
  void reserve(int most_neighbours);
  void pad();
  void add_repulsion();
  void explain() const;

  friend struct ForwardAndBack;
  friend struct ByParameters;
};

}    // namespace mtp
