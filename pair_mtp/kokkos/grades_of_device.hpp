// SPDX-License-Identifier: BSD-3-Clause
// Extrapolation grades with Kokkos threads: rows dV_i/dtheta of a batch of atoms of one species, times A^-1, which stays on the device; of each atom
// the largest element (core/grader.hpp does the same eight atoms at a time). Batches are sized to the device, not to the number of atoms.
#pragma once

#include "sites_of_device.hpp"

#include "../core/active_set.hpp"
#include "../core/sites.hpp"

namespace mtp {

constexpr int atoms_of_product = 8;    // rows that a team multiplies at once: every element of A^-1 that it reads serves as many

// gamma_i = max_j |sum_k b_ik A^-1_kj|, NaN where a row is not finite. A team multiplies some rows, its threads have different columns j.
struct LargestProducts {
  int n_atoms, n_active, width;    // width: number of parameters
  const double *rows, *inverse;    // [atom][n_active]; [n_active][width]
  const int *centres;
  double *gamma;    // [atom of LAMMPS]

  template <class Member> MTP_FUNCTION void operator()(const Member &member) const
  {
    const int first = member.league_rank() * atoms_of_product;
    const double *row[atoms_of_product];
    for (int i = 0; i < atoms_of_product; i++) {    // beyond the last atom: the last one again
      const int atom = first + i < n_atoms ? first + i : n_atoms - 1;
      row[i] = rows + static_cast<std::size_t>(atom) * n_active;
    }
    double most[atoms_of_product] = {}, poison[atoms_of_product] = {};
    for (int j = member.team_rank(); j < width; j += member.team_size()) {
      double sum[atoms_of_product] = {};
      for (int k = 0; k < n_active; k++) {
        const double factor = inverse[static_cast<std::size_t>(k) * width + j];
        for (int i = 0; i < atoms_of_product; i++) sum[i] += row[i][k] * factor;
      }
      for (int i = 0; i < atoms_of_product; i++) {
        most[i] = larger_size(sum[i], most[i]);
        poison[i] += sum[i] * 0.0;    // NaN, where it is not finite, is kept
      }
    }
    for (int i = 0; i < atoms_of_product; i++) {
      member.team_reduce(Kokkos::Max<double>(most[i]));
      member.team_reduce(Kokkos::Sum<double>(poison[i]));
      if (member.team_rank() == 0 && first + i < n_atoms) gamma[centres[first + i]] = most[i] + poison[i];
    }
  }
};

// sum[k] += sum of the rows' elements k
struct SumOfRows {
  static constexpr int atoms_of_thread = 64;
  int n_atoms, n_active;
  const double *rows;
  double *sum;

  MTP_FUNCTION void operator()(int index) const
  {
    const int k = index % n_active, first = index / n_active * atoms_of_thread;
    const int last = first + atoms_of_thread < n_atoms ? first + atoms_of_thread : n_atoms;
    double mine = 0;
    for (int i = first; i < last; i++) mine += rows[static_cast<std::size_t>(i) * n_active + k];
    Kokkos::atomic_add(&sum[k], mine);
  }
};

// The centres of one species, in their order
struct CentresOfSpecies {
  using value_type = int;
  DeviceAtoms atoms;
  int species;
  int *chosen;

  MTP_FUNCTION void operator()(int k, int &n, bool last) const
  {
    if (atoms.species_of_type[atoms.type[atoms.centres[k]]] != species) return;
    if (last) chosen[n] = atoms.centres[k];
    n++;
  }
};

template <class DeviceType> class DeviceGrader {
 public:
  DeviceGrader(const ActiveSet &set, const PlanView &plan) : of_configurations(set.mode == ActiveSetMode::configuration), width(set.n)
  {
    const Sites<double> order(plan);
    length = order.n_active();
    inverses = Numbers("mtp:inverses", static_cast<std::size_t>(plan.n_species) * length * width);
    const auto host = Kokkos::create_mirror_view(inverses);
    for (int z = 0; z < plan.n_species; z++)
      for (int k = 0; k < length; k++)
        for (int j = 0; j < width; j++)
          host((static_cast<std::size_t>(z) * length + k) * width + j) =
              set.inverse_transposed[static_cast<std::size_t>(j) * width + order.place_of_active(z, k)];
    Kokkos::deep_copy(inverses, host);
    sums = Numbers("mtp:sum of rows", static_cast<std::size_t>(plan.n_species) * length);
  }

  // As DeviceSites::evaluate(), in double precision, with the grades of the atoms into gamma, or the sum of their rows for that of the configuration.
  SiteTotals evaluate(DeviceSites<DeviceType> &sites, const PlanView &plan, const DeviceAtoms &atoms, const DeviceSums &sums_of_atoms, int team_size,
                      double *gamma)
  {
    SiteTotals totals;
    Kokkos::deep_copy(sums, 0.0);
    if (chosen.extent(0) < static_cast<std::size_t>(atoms.n)) chosen = Kokkos::View<int *, Space>("mtp:chosen", atoms.n);
    // as many rows as there are atoms under way: more would not be done sooner
    const int size_of_batch = std::max(2 * atoms_of_product, DeviceType().concurrency() / (team_size == 0 ? 1 : 16));
    for (int z = 0; z < plan.n_species; z++) {
      int n = 0;
      Kokkos::parallel_scan("mtp:centres", Kokkos::RangePolicy<DeviceType>(0, atoms.n), CentresOfSpecies{atoms, z, chosen.data()}, n);
      for (int first = 0; first < n; first += size_of_batch) {
        DeviceAtoms batch = atoms;
        batch.n = std::min(size_of_batch, n - first);
        batch.centres = chosen.data() + first;
        const std::size_t size = static_cast<std::size_t>(batch.n) * length;
        if (rows.extent(0) < size) {
          rows = Numbers();    // not two at a time
          rows = Numbers(Kokkos::view_alloc(Kokkos::WithoutInitializing, "mtp:rows"), size);
        }
        totals += sites.evaluate_rows(plan, batch, sums_of_atoms, team_size, rows.data());
        if (of_configurations) add_rows(batch.n, sums.data() + static_cast<std::size_t>(z) * length);
        else multiply(batch, inverses.data() + static_cast<std::size_t>(z) * length * width, gamma);
      }
    }
    return totals;
  }

  // Of the latest evaluation: sum of the rows of the atoms of each species, [z][n_active]
  std::vector<double> sum_of_rows() const
  {
    const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), sums);
    return std::vector<double>(host.data(), host.data() + host.extent(0));
  }

  std::size_t bytes() const { return (inverses.extent(0) + rows.extent(0) + sums.extent(0)) * sizeof(double) + chosen.extent(0) * sizeof(int); }

 private:
  using Space = typename DeviceType::memory_space;
  using Numbers = Kokkos::View<double *, Space>;
  bool of_configurations;
  int width, length = 0;    // numbers of parameters: all, and those that an atom has
  Numbers inverses;         // [z][n_active][width]: the active rows of A^-1
  Numbers rows, sums;
  Kokkos::View<int *, Space> chosen;

  void add_rows(int n_atoms, double *sum) const
  {
    const SumOfRows kernel{n_atoms, length, rows.data(), sum};
    const int n_slices = (n_atoms + SumOfRows::atoms_of_thread - 1) / SumOfRows::atoms_of_thread;
    Kokkos::parallel_for("mtp:rows", Kokkos::RangePolicy<DeviceType>(0, n_slices * length), kernel);
  }

  void multiply(const DeviceAtoms &batch, const double *inverse, double *gamma) const
  {
    constexpr int threads = Kokkos::SpaceAccessibility<Kokkos::HostSpace, Space>::accessible ? 1 : 128;
    const int n_teams = (batch.n + atoms_of_product - 1) / atoms_of_product;
    const LargestProducts kernel{batch.n, length, width, rows.data(), inverse, batch.centres, gamma};
    Kokkos::parallel_for("mtp:grades", Kokkos::TeamPolicy<DeviceType>(n_teams, threads), kernel);
  }
};

}    // namespace mtp
