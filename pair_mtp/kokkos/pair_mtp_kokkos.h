// SPDX-License-Identifier: GPL-2.0-or-later
// pair_style mtp/kk, mtp/extrapolation/kk: as mtp and mtp/extrapolation, for LAMMPS' KOKKOS package. Input files are the same; `-k on t N -sf kk`
// chooses these styles.
//
//   pair_style mtp/kk [variant lanes|thread|warp|team] [precision double|mixed]
//
// lanes: the sweeps of the plain styles, eight atoms at once in the vectors of a CPU, with the threads and the lists of Kokkos. The default on the
// host.
// thread, warp, team: an atom for one, 32 or 128 threads of a device (site_of_team.hpp); without the keyword by the number of atoms. On the host a
// warp is one thread and a team all of them: slow, to test what a device computes.
// precision mixed: what belongs to one neighbour is computed in single precision; not with lanes, and not on steps with grades.
#ifdef PAIR_CLASS
// clang-format off
PairStyle(mtp/kk,PairMTPKokkos<LMPDeviceType>);
PairStyle(mtp/kk/device,PairMTPKokkos<LMPDeviceType>);
PairStyle(mtp/kk/host,PairMTPKokkos<LMPHostType>);
// clang-format on
#else

#ifndef LMP_PAIR_MTP_KOKKOS_H
#define LMP_PAIR_MTP_KOKKOS_H

#include "../lammps/pair_mtp.h"
#include "sites_of_device.hpp"

#include "kokkos_type.h"

#include <memory>
#include <type_traits>

namespace LAMMPS_NS {

// `Style` with the lists of Kokkos' space and the threads of its host
template <class DeviceType, class Style> class MTPOnHost : public Style {
 public:
  explicit MTPOnHost(class LAMMPS *lmp);

  void init_style() override;
  void compute(int eflag, int vflag) override;

 protected:
  using Listed = typename Style::Listed;
  static constexpr bool is_host = std::is_same_v<DeviceType, LMPHostType>;

  int n_parts() const override;
  void for_each_part(const std::function<void(int)> &action) const override;
  const int *centres() const override;
  Listed listed(int i) const override;
};

// And with the kernels for devices. Style: PairMTP, or what derives from it.
template <class DeviceType, class Style> class MTPOnDevice : public MTPOnHost<DeviceType, Style> {
 public:
  explicit MTPOnDevice(class LAMMPS *lmp);

  void settings(int narg, char **arg) override;
  double memory_usage() override;

 protected:
  enum class Variant { automatic, lanes, thread, warp, team };
  using Space = typename DeviceType::memory_space;

  Variant variant = Variant::automatic;
  bool mixed = false;
  std::shared_ptr<const mtp::Model> planned;    // the one that `plan` is of
  std::unique_ptr<mtp::DevicePlan<DeviceType>> plan;
  mtp::DeviceSites<DeviceType> sites;
  Kokkos::View<int *, Space> species;    // of types

  void evaluate_atoms(int eflag, int vflag, bool all_scalars) override;
  // all_scalars: for styles that want more than energy and forces
  virtual mtp::SiteTotals evaluate_on_device(const mtp::DeviceAtoms &atoms, const mtp::DeviceSums &sums, bool all_scalars);
  mtp::DeviceAtoms listed_atoms() const;
  int team_size(int n_atoms) const;

 private:
  Kokkos::View<double *, Space> energies, six, nine;

  void raise(const mtp::SiteTotals &totals) const;
};

template <class DeviceType> using PairMTPKokkos = MTPOnDevice<DeviceType, PairMTP>;

}    // namespace LAMMPS_NS

#endif
#endif
