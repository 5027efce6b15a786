// SPDX-License-Identifier: GPL-2.0-or-later
// pair_style mtp/kk, mtp/extrapolation/kk: as mtp and mtp/extrapolation, for LAMMPS' KOKKOS package. Input files are the same; `-k on t N -sf kk`
// chooses these styles.
//
// Where Kokkos computes on the host, the atoms go through the same sweeps as in the plain styles, with lists and threads of Kokkos.
#ifdef PAIR_CLASS
// clang-format off
PairStyle(mtp/kk,PairMTPKokkos<LMPDeviceType>);
PairStyle(mtp/kk/device,PairMTPKokkos<LMPDeviceType>);
PairStyle(mtp/kk/host,PairMTPKokkos<LMPHostType>);
PairStyle(mtp/extrapolation/kk,PairMTPExtrapolationKokkos<LMPDeviceType>);
PairStyle(mtp/extrapolation/kk/device,PairMTPExtrapolationKokkos<LMPDeviceType>);
PairStyle(mtp/extrapolation/kk/host,PairMTPExtrapolationKokkos<LMPHostType>);
// clang-format on
#else

#ifndef LMP_PAIR_MTP_KOKKOS_H
#define LMP_PAIR_MTP_KOKKOS_H

#include "../lammps/pair_mtp_extrapolation.h"

#include "kokkos_type.h"

namespace LAMMPS_NS {

// `Style` on the threads of a Kokkos host space
template <class DeviceType, class Style> class MTPKokkos : public Style {
 public:
  explicit MTPKokkos(class LAMMPS *lmp);

  void init_style() override;
  void compute(int eflag, int vflag) override;

 protected:
  using Listed = typename Style::Listed;

  int n_parts() const override;
  void for_each_part(const std::function<void(int)> &action) const override;
  const int *centres() const override;
  Listed listed(int i) const override;
};

template <class DeviceType> using PairMTPKokkos = MTPKokkos<DeviceType, PairMTP>;
template <class DeviceType> using PairMTPExtrapolationKokkos = MTPKokkos<DeviceType, PairMTPExtrapolation>;

}    // namespace LAMMPS_NS

#endif
#endif
