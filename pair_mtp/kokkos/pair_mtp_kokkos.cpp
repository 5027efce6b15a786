// SPDX-License-Identifier: GPL-2.0-or-later
#include "pair_mtp_kokkos.h"

#include "atom_kokkos.h"
#include "atom_masks.h"
#include "neigh_list_kokkos.h"
#include "neigh_request.h"
#include "neighbor.h"

#include <type_traits>

using namespace LAMMPS_NS;

template <class DeviceType, class Style> MTPKokkos<DeviceType, Style>::MTPKokkos(LAMMPS *lmp) : Style(lmp)
{
  this->kokkosable = 1;
  this->atomKK = static_cast<AtomKokkos *>(this->atom);
  this->execution_space = Host;
  this->datamask_read = X_MASK | F_MASK | TYPE_MASK | TAG_MASK | ENERGY_MASK | VIRIAL_MASK;
  this->datamask_modify = F_MASK | ENERGY_MASK | VIRIAL_MASK;
}

template <class DeviceType, class Style> void MTPKokkos<DeviceType, Style>::init_style()
{
  Style::init_style();
  constexpr bool on_device = std::is_same_v<DeviceType, LMPDeviceType>;
  NeighRequest *const request = this->neighbor->find_request(this);
  request->set_kokkos_device(on_device);
  request->set_kokkos_host(!on_device);
}

template <class DeviceType, class Style> void MTPKokkos<DeviceType, Style>::compute(int eflag, int vflag)
{
  this->atomKK->sync(this->execution_space, this->datamask_read);
  Style::compute(eflag, vflag);
  this->atomKK->modified(this->execution_space, this->datamask_modify);
}

template <class DeviceType, class Style> int MTPKokkos<DeviceType, Style>::n_parts() const
{
  return DeviceType().concurrency();
}

template <class DeviceType, class Style> void MTPKokkos<DeviceType, Style>::for_each_part(const std::function<void(int)> &action) const
{
  const std::function<void(int)> *const shared = &action;
  Kokkos::RangePolicy<DeviceType, Kokkos::Schedule<Kokkos::Static>> parts(0, n_parts());
  parts.set_chunk_size(1);
  Kokkos::parallel_for("mtp", parts, [shared](int part) { (*shared)(part); });
}

template <class DeviceType, class Style> const int *MTPKokkos<DeviceType, Style>::centres() const
{
  return static_cast<NeighListKokkos<DeviceType> *>(this->list)->d_ilist.data();
}

template <class DeviceType, class Style> typename Style::Listed MTPKokkos<DeviceType, Style>::listed(int i) const
{
  const auto *const found = static_cast<NeighListKokkos<DeviceType> *>(this->list);
  const auto &rows = found->d_neighbors;
  return {found->d_numneigh.data()[i], rows.data() + i * rows.stride(0), static_cast<std::ptrdiff_t>(rows.stride(1))};
}

namespace LAMMPS_NS {
template class MTPKokkos<LMPHostType, PairMTP>;
template class MTPKokkos<LMPHostType, PairMTPExtrapolation>;
}    // namespace LAMMPS_NS
