// SPDX-License-Identifier: GPL-2.0-or-later
// mtpkkplugin.so. Only the names with /kk: LAMMPS takes them where the input says `suffix kk`; the others are in mtpplugin.so.
#include "../lammps/plugin.hpp"

#include "pair_mtp_extrapolation_kokkos.h"

using namespace LAMMPS_NS;

extern "C" __attribute__((visibility("default"))) void lammpsplugin_init(void *lmp, void *handle, void *regfunc)
{
  check_version(lmp, "mtpkkplugin.so");
  Registration styles(lmp, handle, regfunc);
  const char *const mtp = "moment tensor potentials, pair style mtp/kk";
  styles.pair("mtp/kk", mtp, create_pair<PairMTPKokkos<LMPDeviceType>>);
  styles.pair("mtp/kk/device", mtp, create_pair<PairMTPKokkos<LMPDeviceType>>);
  styles.pair("mtp/kk/host", mtp, create_pair<PairMTPKokkos<LMPHostType>>);
  const char *const extrapolation = "moment tensor potentials with extrapolation grades, pair style mtp/extrapolation/kk";
  styles.pair("mtp/extrapolation/kk", extrapolation, create_pair<PairMTPExtrapolationKokkos<LMPDeviceType>>);
  styles.pair("mtp/extrapolation/kk/device", extrapolation, create_pair<PairMTPExtrapolationKokkos<LMPDeviceType>>);
  styles.pair("mtp/extrapolation/kk/host", extrapolation, create_pair<PairMTPExtrapolationKokkos<LMPHostType>>);
}
