// SPDX-License-Identifier: GPL-2.0-or-later
#include "pair_mtp_extrapolation_kokkos.h"

#include "atom_kokkos.h"
#include "atom_masks.h"
#include "error.h"
#include "update.h"

#include <algorithm>
#include <cmath>
#include <limits>

using namespace LAMMPS_NS;

namespace {

// Of which atoms to gather: those with a higher grade
struct Above {
  const double *gamma;
  double grade;

  KOKKOS_INLINE_FUNCTION bool operator()(int i) const { return gamma[i] > grade; }
};

// ... and those with an image within reach of a centre
struct Near {
  mtp::Table<const double> positions;
  double centre[3];
  Images within;

  KOKKOS_INLINE_FUNCTION bool operator()(int i) const
  {
    const double vector[3] = {positions(i, 0) - centre[0], positions(i, 1) - centre[1], positions(i, 2) - centre[2]};
    return within.any(vector);
  }
};

template <class Wanted> struct Choose {
  using value_type = int;
  Wanted wanted;
  int *chosen;

  KOKKOS_INLINE_FUNCTION void operator()(int i, int &n, bool last) const
  {
    if (!wanted(i)) return;
    if (last) chosen[n] = i;
    n++;
  }
};

struct Gather {
  const int *chosen, *type, *species_of_type;
  const tagint *tag;    // null: atoms have none
  const double *gamma;
  mtp::Table<const double> positions;
  GradedAtom *gathered;

  KOKKOS_INLINE_FUNCTION void operator()(int k) const
  {
    const int i = chosen[k];
    GradedAtom &atom = gathered[k];
    atom.grade = gamma[i];
    atom.tag = tag ? static_cast<double>(tag[i]) : 0.0;
    atom.species = species_of_type[type[i]];
    for (int a = 0; a < 3; a++) atom.x[a] = positions(i, a);
  }
};

// The highest grade; `infinite`, where one is not finite
struct Highest {
  const double *gamma;
  double infinite = std::numeric_limits<double>::infinity();

  KOKKOS_INLINE_FUNCTION void operator()(int i, double &most) const
  {
    const double grade = gamma[i] - gamma[i] == 0.0 ? gamma[i] : infinite;
    most = grade > most ? grade : most;
  }
};

}    // namespace

template <class DeviceType> PairMTPExtrapolationKokkos<DeviceType>::PairMTPExtrapolationKokkos(LAMMPS *lmp) : Style(lmp) {}

template <class DeviceType> bool PairMTPExtrapolationKokkos<DeviceType>::on_device() const
{
  return this->variant != Style::Variant::lanes && !this->grades_configurations();
}

template <class DeviceType> void PairMTPExtrapolationKokkos<DeviceType>::begin_grades()
{
  Style::begin_grades();
  on_host = !on_device();
  const std::size_t n = this->gamma.size();
  if (on_host) {
    this->atomKK->sync(Host, TYPE_MASK);    // end_grades() reads the types of atoms, which a device may have exchanged among ranks
    return;
  }
  if (device_gamma.extent(0) < n) device_gamma = Kokkos::View<double *, Space>("mtp:gamma", n);
  else Kokkos::deep_copy(device_gamma, 0.0);    // atoms of other styles have none
}

template <class DeviceType>
mtp::SiteTotals PairMTPExtrapolationKokkos<DeviceType>::evaluate_on_device(const mtp::DeviceAtoms &atoms, const mtp::DeviceSums &sums,
                                                                           bool all_scalars)
{
  if (!all_scalars) return Style::evaluate_on_device(atoms, sums, all_scalars);
  if (graded != this->model) {
    graded = this->model;
    device_grader = std::make_unique<mtp::DeviceGrader<DeviceType>>(*graded->potential.active_set, this->plan->view());
  }
  return device_grader->evaluate(this->sites, this->plan->view(), atoms, sums, this->team_size(atoms.n), device_gamma.data());
}

template <class DeviceType> typename PairMTPExtrapolation::SumOfRows PairMTPExtrapolationKokkos<DeviceType>::sum_of_rows() const
{
  if (this->variant == Style::Variant::lanes) return Style::sum_of_rows();
  const mtp::PlanView plan = this->model->plan.view();
  const mtp::Sites<double> order(plan);
  const std::vector<double> sums = device_grader->sum_of_rows();
  SumOfRows all = {std::vector<double>(plan.n_parameters), 0};
  for (int z = 0; z < plan.n_species; z++) {
    const double *const of_species = &sums[static_cast<std::size_t>(z) * order.n_active()];
    for (int k = 0; k < order.n_active(); k++) all.sum[order.place_of_active(z, k)] += of_species[k];
    all.n_atoms += static_cast<bigint>(std::lround(of_species[order.n_radial_active()]));    // an atom's energy by its species' is 1
  }
  return all;
}

template <class DeviceType> double PairMTPExtrapolationKokkos<DeviceType>::highest_of_atoms() const
{
  if (on_host) return Style::highest_of_atoms();
  double most = 0;
  Kokkos::parallel_reduce("mtp:highest", Kokkos::RangePolicy<DeviceType>(0, this->atom->nlocal), Highest{device_gamma.data()},
                          Kokkos::Max<double>(most));
  if (std::isfinite(most)) return std::max(most, 0.0);
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), device_gamma);
  int i = 0;
  while (i < this->atom->nlocal - 1 && std::isfinite(host(i))) i++;
  this->atomKK->sync(Host, TAG_MASK);
  this->error->one(FLERR, "Pair style {} at step {}, atom {}: the extrapolation grade is not finite", this->style, this->update->ntimestep,
                   this->atom->tag_enable ? this->atom->tag[i] : i + 1);
}

template <class DeviceType>
template <class Wanted>
std::vector<GradedAtom> PairMTPExtrapolationKokkos<DeviceType>::gathered(const Wanted &wanted) const
{
  const int n_local = this->atom->nlocal;
  int n = 0;
  Kokkos::View<int *, Space> chosen(Kokkos::view_alloc(Kokkos::WithoutInitializing, "mtp:chosen"), n_local);
  Kokkos::parallel_scan("mtp:choose", Kokkos::RangePolicy<DeviceType>(0, n_local), Choose<Wanted>{wanted, chosen.data()}, n);
  Kokkos::View<GradedAtom *, Space> found(Kokkos::view_alloc(Kokkos::WithoutInitializing, "mtp:gathered"), n);
  const mtp::DeviceAtoms atoms = this->listed_atoms();
  const Gather gather = {chosen.data(),         atoms.type,
                         atoms.species_of_type, this->atom->tag_enable ? this->atomKK->k_tag.template view<DeviceType>().data() : nullptr,
                         device_gamma.data(),   atoms.positions,
                         found.data()};
  Kokkos::parallel_for("mtp:gather", Kokkos::RangePolicy<DeviceType>(0, n), gather);
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), found);
  return std::vector<GradedAtom>(host.data(), host.data() + n);
}

template <class DeviceType> std::vector<GradedAtom> PairMTPExtrapolationKokkos<DeviceType>::atoms_above(double grade) const
{
  if (!on_host) return gathered(Above{device_gamma.data(), grade});
  this->atomKK->sync(Host, X_MASK | TYPE_MASK | TAG_MASK);
  return Style::atoms_above(grade);
}

template <class DeviceType>
std::vector<GradedAtom> PairMTPExtrapolationKokkos<DeviceType>::atoms_near(const double *centre, const Images &within) const
{
  if (on_host) return Style::atoms_near(centre, within);
  return gathered(Near{this->listed_atoms().positions, {centre[0], centre[1], centre[2]}, within});
}

template <class DeviceType> const double *PairMTPExtrapolationKokkos<DeviceType>::grades()
{
  if (!on_host) {
    const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), device_gamma);
    std::copy(host.data(), host.data() + this->gamma.size(), this->gamma.begin());
    on_host = true;
  }
  return Style::grades();
}

template <class DeviceType> double PairMTPExtrapolationKokkos<DeviceType>::memory_usage()
{
  const std::size_t on_device = device_gamma.extent(0) * sizeof(double) + (device_grader ? device_grader->bytes() : 0);
  return Style::memory_usage() + static_cast<double>(on_device);
}

namespace LAMMPS_NS {
template class PairMTPExtrapolationKokkos<LMPHostType>;
#ifdef LMP_KOKKOS_GPU
template class PairMTPExtrapolationKokkos<LMPDeviceType>;
#endif
}    // namespace LAMMPS_NS
