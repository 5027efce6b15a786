// SPDX-License-Identifier: GPL-2.0-or-later
#include "pair_mtp_kokkos.h"

#include "../lammps/pair_mtp_extrapolation.h"

#include "atom_kokkos.h"
#include "atom_masks.h"
#include "error.h"
#include "neigh_list_kokkos.h"
#include "neigh_request.h"
#include "neighbor.h"
#include "update.h"

#include <climits>
#include <cstring>
#include <map>
#include <string>

using namespace LAMMPS_NS;

template <class DeviceType, class Style> MTPOnHost<DeviceType, Style>::MTPOnHost(LAMMPS *lmp) : Style(lmp)
{
  this->kokkosable = 1;
  this->atomKK = static_cast<AtomKokkos *>(this->atom);
  this->execution_space = is_host ? Host : ExecutionSpaceFromDevice<DeviceType>::space;
  this->datamask_read = X_MASK | F_MASK | TYPE_MASK | TAG_MASK | ENERGY_MASK | VIRIAL_MASK;
  this->datamask_modify = F_MASK | ENERGY_MASK | VIRIAL_MASK;
}

template <class DeviceType, class Style> void MTPOnHost<DeviceType, Style>::init_style()
{
  Style::init_style();
  constexpr bool on_device = std::is_same_v<DeviceType, LMPDeviceType>;
  NeighRequest *const request = this->neighbor->find_request(this);
  request->set_kokkos_device(on_device);
  request->set_kokkos_host(!on_device);
}

template <class DeviceType, class Style> void MTPOnHost<DeviceType, Style>::compute(int eflag, int vflag)
{
  this->atomKK->sync(this->execution_space, this->datamask_read);
  Style::compute(eflag, vflag);
  this->atomKK->modified(this->execution_space, this->datamask_modify);
}

template <class DeviceType, class Style> int MTPOnHost<DeviceType, Style>::n_parts() const
{
  return is_host ? LMPHostType().concurrency() : 1;
}

template <class DeviceType, class Style> void MTPOnHost<DeviceType, Style>::for_each_part(const std::function<void(int)> &action) const
{
  const std::function<void(int)> *const shared = &action;
  Kokkos::RangePolicy<LMPHostType, Kokkos::Schedule<Kokkos::Static>> parts(0, n_parts());
  parts.set_chunk_size(1);
  Kokkos::parallel_for("mtp", parts, [shared](int part) { (*shared)(part); });
}

template <class DeviceType, class Style> const int *MTPOnHost<DeviceType, Style>::centres() const
{
  return static_cast<NeighListKokkos<DeviceType> *>(this->list)->d_ilist.data();
}

template <class DeviceType, class Style> typename Style::Listed MTPOnHost<DeviceType, Style>::listed(int i) const
{
  const auto *const found = static_cast<NeighListKokkos<DeviceType> *>(this->list);
  const auto &rows = found->d_neighbors;
  return {found->d_numneigh.data()[i], rows.data() + i * rows.stride(0), static_cast<std::ptrdiff_t>(rows.stride(1))};
}

template <class DeviceType, class Style> MTPOnDevice<DeviceType, Style>::MTPOnDevice(LAMMPS *lmp) : MTPOnHost<DeviceType, Style>(lmp) {}

template <class DeviceType, class Style> void MTPOnDevice<DeviceType, Style>::settings(int narg, char **arg)
{
  const std::map<std::string, Variant> variants = {
      {"lanes", Variant::lanes}, {"thread", Variant::thread}, {"warp", Variant::warp}, {"team", Variant::team}};
  const std::map<std::string, bool> precisions = {{"double", false}, {"mixed", true}};
  const auto chosen = [&](const auto &known, const char *keyword, const char *allowed) {
    const auto found = known.find(arg[narg - 1]);
    if (found == known.end()) this->error->all(FLERR, "Pair style {}/kk: {} is {}, not {}", this->style, keyword, allowed, arg[narg - 1]);
    return found->second;
  };
  variant = Variant::automatic;
  mixed = false;
  for (; narg >= 2; narg -= 2) {
    if (strcmp(arg[narg - 2], "variant") == 0) variant = chosen(variants, "variant", "lanes, thread, warp or team");
    else if (strcmp(arg[narg - 2], "precision") == 0) mixed = chosen(precisions, "precision", "double or mixed");
    else break;
  }
  if (variant == Variant::automatic && this->is_host) variant = Variant::lanes;
  if (variant == Variant::lanes && !this->is_host)
    this->error->all(FLERR, "Pair style {}/kk: variant lanes is for CPUs; there is {}/kk/host", this->style, this->style);
  if (variant == Variant::lanes && mixed)
    this->error->all(FLERR, "Pair style {}/kk: precision mixed is for devices, or for the variants thread, warp and team", this->style);
  if (variant != Variant::lanes && !std::is_same_v<DeviceType, LMPDeviceType>)
    this->error->all(FLERR, "Pair style {}/kk/host has variant lanes alone where there is a device", this->style);
  this->no_virial_fdotr_compute = variant != Variant::lanes;    // the virial of the whole is summed along
  Style::settings(narg, arg);
}

// Threads an atom, 0: one without a team. The more atoms, the fewer: as long as all threads of the device have work, one that has no others to
// wait for does most. Tables of moments too large for the first-level cache of all threads are for teams, which hold them in the memory near the
// threads; and so is mixed precision, because a thread alone has a single neighbour to add up before it widens a number.
template <class DeviceType, class Style> int MTPOnDevice<DeviceType, Style>::team_size(int n_atoms) const
{
  using mtp::threads_of_team, mtp::threads_of_warp;
  constexpr int small_table = 50;
  const std::size_t n_threads = DeviceType().concurrency();
  Variant chosen = variant;
  if (chosen == Variant::automatic) {
    chosen = Variant::warp;
    if (static_cast<std::size_t>(n_atoms) * threads_of_team <= n_threads) chosen = Variant::team;
    if (static_cast<std::size_t>(n_atoms) >= n_threads && plan->view().n_moments <= small_table && !mixed) chosen = Variant::thread;
  }
  if (chosen == Variant::thread) return 0;
  if (this->is_host) return chosen == Variant::warp ? 1 : static_cast<int>(n_threads);
  return chosen == Variant::warp ? threads_of_warp : threads_of_team;
}

template <class DeviceType, class Style> mtp::DeviceAtoms MTPOnDevice<DeviceType, Style>::listed_atoms() const
{
  auto x = this->atomKK->k_x.template view<DeviceType>();
  static_assert(std::is_same_v<std::decay_t<decltype(x(0, 0))>, double>,
                "mtp/kk takes positions in double precision: build LAMMPS with KOKKOS_PREC=double; `precision mixed` is this style's own");
  const auto *const list = static_cast<NeighListKokkos<DeviceType> *>(this->list);
  mtp::DeviceAtoms atoms;
  atoms.n = list->inum;
  atoms.index_mask = NEIGHMASK;
  atoms.centres = list->d_ilist.data();
  atoms.n_listed = list->d_numneigh.data();
  atoms.listed = {list->d_neighbors.data(), {list->d_neighbors.stride(0), list->d_neighbors.stride(1)}};
  atoms.type = this->atomKK->k_type.template view<DeviceType>().data();
  atoms.species_of_type = species.data();
  atoms.positions = {x.data(), {x.stride(0), x.stride(1)}};
  return atoms;
}

template <class DeviceType, class Style> void MTPOnDevice<DeviceType, Style>::evaluate_atoms(int eflag, int vflag, bool all_scalars)
{
  if (variant == Variant::lanes) {
    Style::evaluate_atoms(eflag, vflag, all_scalars);
    return;
  }
  if (planned != this->model) {
    planned = this->model;
    plan = std::make_unique<mtp::DevicePlan<DeviceType>>(planned->plan);
    species = Kokkos::View<int *, Space>("mtp:species", this->species_of_type.size());
    Kokkos::deep_copy(species, Kokkos::View<const int *, Kokkos::HostSpace, Kokkos::MemoryTraits<Kokkos::Unmanaged>>(this->species_of_type.data(),
                                                                                                                     this->species_of_type.size()));
  }
  this->ev_init(eflag, vflag);

  const std::size_t n_all = this->atom->nlocal + this->atom->nghost;
  const auto cleared = [](Kokkos::View<double *, Space> &view, std::size_t n) {
    if (view.extent(0) < n) view = Kokkos::View<double *, Space>(Kokkos::view_alloc(Kokkos::WithoutInitializing, "mtp:sums"), n);
    Kokkos::deep_copy(view, 0.0);
    return view.data();
  };
  auto f = this->atomKK->k_f.template view<DeviceType>();
  static_assert(std::is_same_v<std::decay_t<decltype(f(0, 0))>, double>,
                "mtp/kk sums forces in double precision: build LAMMPS with KOKKOS_PREC=double");
  mtp::DeviceSums sums;
  sums.unit = this->energy_unit;
  sums.any_virial = this->vflag_either;
  sums.forces = {f.data(), {f.stride(0), f.stride(1)}};
  if (this->eflag_atom) sums.energies = cleared(energies, n_all);
  if (this->vflag_atom) sums.six = cleared(six, 6 * n_all);
  if (this->cvflag_atom) sums.nine = cleared(nine, 9 * n_all);

  const mtp::SiteTotals totals = evaluate_on_device(listed_atoms(), sums, all_scalars);
  raise(totals);
  if (this->eflag_global) this->eng_vdwl += totals.energy;
  if (this->vflag_global)
    for (int k = 0; k < 6; k++) this->virial[k] += totals.virial[k];
  const auto take = [](const Kokkos::View<double *, Space> &from, double *to, std::size_t n) {
    const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), from);
    for (std::size_t k = 0; k < n; k++) to[k] += host(k);
  };
  if (sums.energies) take(energies, this->eatom, n_all);
  if (sums.six && n_all) take(six, this->vatom[0], 6 * n_all);
  if (sums.nine && n_all) take(nine, this->cvatom[0], 9 * n_all);
}

template <class DeviceType, class Style>
mtp::SiteTotals MTPOnDevice<DeviceType, Style>::evaluate_on_device(const mtp::DeviceAtoms &atoms, const mtp::DeviceSums &sums, bool)
{
  if (mixed) return sites.template evaluate<mtp::Single>(plan->view(), atoms, sums, team_size(atoms.n));
  return sites.template evaluate<double>(plan->view(), atoms, sums, team_size(atoms.n));
}

template <class DeviceType, class Style> void MTPOnDevice<DeviceType, Style>::raise(const mtp::SiteTotals &totals) const
{
  const char *problem = nullptr;
  int i = INT_MAX;
  if (totals.not_finite != INT_MAX) {
    i = totals.not_finite;
    problem = "the site energy is not finite: atoms are far closer than in any training data, or coefficients are damaged";
  }
  if (totals.coinciding != INT_MAX) {
    i = totals.coinciding;
    problem = "two atoms are at the same place, or a position is NaN";
  }
  if (!problem) return;
  this->atomKK->sync(Host, TAG_MASK);
  this->error->one(FLERR, "Pair style {} at step {}, atom {}: {}", this->style, this->update->ntimestep,
                   this->atom->tag_enable ? this->atom->tag[i] : i + 1, problem);
}

template <class DeviceType, class Style> double MTPOnDevice<DeviceType, Style>::memory_usage()
{
  const std::size_t sums = energies.extent(0) + six.extent(0) + nine.extent(0);
  return Style::memory_usage() + static_cast<double>(sites.bytes() + sums * sizeof(double));
}

namespace LAMMPS_NS {
template class MTPOnDevice<LMPHostType, PairMTP>;
template class MTPOnDevice<LMPHostType, PairMTPExtrapolation>;
#ifdef LMP_KOKKOS_GPU
template class MTPOnDevice<LMPDeviceType, PairMTP>;
template class MTPOnDevice<LMPDeviceType, PairMTPExtrapolation>;
#endif
}    // namespace LAMMPS_NS
