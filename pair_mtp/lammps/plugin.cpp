// SPDX-License-Identifier: GPL-2.0-or-later
// mtpplugin.so
#include "plugin.hpp"

#include "compute_mtp_grade.h"
#include "fix_mtp_hnemd.h"
#include "fix_mtp_rollback.h"
#include "pair_mtp.h"
#include "pair_mtp_extrapolation.h"

using namespace LAMMPS_NS;

extern "C" __attribute__((visibility("default"))) void lammpsplugin_init(void *lmp, void *handle, void *regfunc)
{
  check_version(lmp, "mtpplugin.so");
  Registration styles(lmp, handle, regfunc);
  styles.pair("mtp", "moment tensor potentials, pair style mtp", create_pair<PairMTP>);
  styles.pair("mtp/extrapolation", "moment tensor potentials with extrapolation grades, pair style mtp/extrapolation",
              create_pair<PairMTPExtrapolation>);
  styles.compute("mtp/grade", "extrapolation grades of pair style mtp/extrapolation, compute style mtp/grade",
                 create_with_arguments<Compute, ComputeMTPGrade>);
  styles.fix("mtp/rollback", "keeps the latest state with trusted extrapolation grades and puts it back, fix style mtp/rollback",
             create_with_arguments<Fix, FixMTPRollback>);
  styles.fix("mtp/hnemd", "driving force of homogeneous non-equilibrium molecular dynamics, fix style mtp/hnemd",
             create_with_arguments<Fix, FixMTPHNEMD>);
}
