// SPDX-License-Identifier: GPL-2.0-or-later
// pair_style mtp/extrapolation/kk: mtp/extrapolation for LAMMPS' KOKKOS package, with the keywords of mtp/kk (pair_mtp_kokkos.h). Where atoms are
// evaluated on a device, grades are computed and kept there (grades_of_device.hpp), in double precision; what crosses to the host is the highest
// grade, the flagged atoms and their neighbourhoods, and, only for those who read them one by one, the grades of all atoms.
#ifdef PAIR_CLASS
// clang-format off
PairStyle(mtp/extrapolation/kk,PairMTPExtrapolationKokkos<LMPDeviceType>);
PairStyle(mtp/extrapolation/kk/device,PairMTPExtrapolationKokkos<LMPDeviceType>);
PairStyle(mtp/extrapolation/kk/host,PairMTPExtrapolationKokkos<LMPHostType>);
// clang-format on
#else

#ifndef LMP_PAIR_MTP_EXTRAPOLATION_KOKKOS_H
#define LMP_PAIR_MTP_EXTRAPOLATION_KOKKOS_H

#include "../lammps/pair_mtp_extrapolation.h"
#include "grades_of_device.hpp"
#include "pair_mtp_kokkos.h"

#include <vector>

namespace LAMMPS_NS {

template <class DeviceType> class PairMTPExtrapolationKokkos : public MTPOnDevice<DeviceType, PairMTPExtrapolation> {
 public:
  explicit PairMTPExtrapolationKokkos(class LAMMPS *lmp);

  const double *grades() override;
  double memory_usage() override;

 protected:
  using Style = MTPOnDevice<DeviceType, PairMTPExtrapolation>;
  using Space = typename DeviceType::memory_space;
  using typename PairMTPExtrapolation::SumOfRows;

  mtp::SiteTotals evaluate_on_device(const mtp::DeviceAtoms &atoms, const mtp::DeviceSums &sums, bool all_scalars) override;
  void begin_grades() override;
  SumOfRows sum_of_rows() const override;
  double highest_of_atoms() const override;
  std::vector<GradedAtom> atoms_above(double grade) const override;
  std::vector<GradedAtom> atoms_near(const double *centre, const Images &within) const override;

 private:
  std::shared_ptr<const mtp::Model> graded;    // the one that `device_grader` is of
  std::unique_ptr<mtp::DeviceGrader<DeviceType>> device_grader;
  Kokkos::View<double *, Space> device_gamma;    // [nmax]
  bool on_host = true;                           // `gamma` holds the latest grades

  bool on_device() const;
  template <class Wanted> std::vector<GradedAtom> gathered(const Wanted &wanted) const;
};

}    // namespace LAMMPS_NS

#endif
#endif
