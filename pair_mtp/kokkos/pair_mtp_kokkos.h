// SPDX-License-Identifier: GPL-2.0-or-later
// pair_style mtp/kk, mtp/extrapolation/kk: as mtp and mtp/extrapolation, for LAMMPS' KOKKOS package. Input files are the same; `-k on t N -sf kk`
// chooses these styles.
//
//   pair_style mtp/kk [variant lanes|thread|warp|team]
//
// lanes: the sweeps of the plain styles, eight atoms at once in the vectors of a CPU, with the threads and the lists of Kokkos. The default on the
// host, and what grades are computed with.
// thread, warp, team: an atom for one, 32 or 128 threads of a device (sites_of_device.hpp); without the keyword by the number of atoms. On the host a
// warp is one thread and a team all of them: slow, to test what a device computes.
#ifdef PAIR_CLASS
// clang-format off
PairStyle(mtp/kk,PairMTPKokkos<LMPDeviceType>);
PairStyle(mtp/kk/device,PairMTPKokkos<LMPDeviceType>);
PairStyle(mtp/kk/host,PairMTPKokkos<LMPHostType>);
#ifndef LMP_KOKKOS_GPU
PairStyle(mtp/extrapolation/kk,PairMTPExtrapolationKokkos<LMPHostType>);
PairStyle(mtp/extrapolation/kk/device,PairMTPExtrapolationKokkos<LMPHostType>);
#endif
PairStyle(mtp/extrapolation/kk/host,PairMTPExtrapolationKokkos<LMPHostType>);
// clang-format on
#else

#ifndef LMP_PAIR_MTP_KOKKOS_H
#define LMP_PAIR_MTP_KOKKOS_H

#include "../lammps/pair_mtp_extrapolation.h"
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

template <class DeviceType> class PairMTPKokkos : public MTPOnHost<DeviceType, PairMTP> {
 public:
  explicit PairMTPKokkos(class LAMMPS *lmp);

  void settings(int narg, char **arg) override;
  void compute(int eflag, int vflag) override;
  double memory_usage() override;

 private:
  enum class Variant { automatic, lanes, thread, warp, team };
  using Space = typename DeviceType::memory_space;

  Variant variant = Variant::automatic;
  std::shared_ptr<const mtp::Model> planned;    // the one that `plan` is of
  std::unique_ptr<mtp::DevicePlan<DeviceType>> plan;
  mtp::DeviceSites<DeviceType> sites;
  Kokkos::View<int *, Space> species;    // of types
  Kokkos::View<double *, Space> energies, six, nine;

  int team_size(int n_atoms) const;
  void raise(const mtp::SiteTotals &totals) const;
};

template <class DeviceType> using PairMTPExtrapolationKokkos = MTPOnHost<DeviceType, PairMTPExtrapolation>;

}    // namespace LAMMPS_NS

#endif
#endif
