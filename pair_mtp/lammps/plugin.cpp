// SPDX-License-Identifier: GPL-2.0-or-later
// Registers the styles with a LAMMPS that loads mtpplugin.so.
//
// The structure is LAMMPS' documented plugin interface (Developer guide, "Writing plugins"). It is declared here because binary distributions of
// LAMMPS do not ship lammpsplugin.h.
#include "compute_mtp_grade.h"
#include "fix_mtp_hnemd.h"
#include "fix_mtp_rollback.h"
#include "pair_mtp.h"
#include "pair_mtp_extrapolation.h"

#include "library.h"
#include "utils.h"

using namespace LAMMPS_NS;

// LAMMPS' classes change from version to version, and LAMMPS itself compares versions only where the `plugin` command loads the file. The library
// interface alone keeps its layout, so it is what asks and warns.
static void check_version(void *lmp)
{
  if (lammps_version(lmp) == utils::date2num(MTP_LAMMPS_VERSION) || lammps_extract_setting(lmp, "world_rank") != 0) return;
  const std::string warning = "mtpplugin.so was built for LAMMPS " MTP_LAMMPS_VERSION ", this is version " + std::to_string(lammps_version(lmp)) +
                              ": it may crash or compute nonsense; build it for this LAMMPS";
  lammps_error(lmp, LMP_ERROR_WARNING, warning.c_str());
}

extern "C" {

typedef void *(lammpsplugin_factory1)(LAMMPS *);
typedef void *(lammpsplugin_factory2)(LAMMPS *, int, char **);

typedef struct {
  const char *version, *style, *name, *info, *author;
  union {
    lammpsplugin_factory1 *v1;
    lammpsplugin_factory2 *v2;
  } creator;
  void *handle;
} lammpsplugin_t;

typedef void (*lammpsplugin_regfunc)(lammpsplugin_t *, void *);

static void *create_mtp(LAMMPS *lmp)
{
  return static_cast<Pair *>(new PairMTP(lmp));
}

static void *create_mtp_extrapolation(LAMMPS *lmp)
{
  return static_cast<Pair *>(new PairMTPExtrapolation(lmp));
}

static void *create_mtp_grade(LAMMPS *lmp, int narg, char **arg)
{
  return static_cast<Compute *>(new ComputeMTPGrade(lmp, narg, arg));
}

static void *create_mtp_hnemd(LAMMPS *lmp, int narg, char **arg)
{
  return static_cast<Fix *>(new FixMTPHNEMD(lmp, narg, arg));
}

static void *create_mtp_rollback(LAMMPS *lmp, int narg, char **arg)
{
  return static_cast<Fix *>(new FixMTPRollback(lmp, narg, arg));
}

__attribute__((visibility("default"))) void lammpsplugin_init(void *lmp, void *handle, void *regfunc)
{
  check_version(lmp);
  const auto register_style = reinterpret_cast<lammpsplugin_regfunc>(regfunc);
  lammpsplugin_t plugin = {};
  plugin.version = MTP_LAMMPS_VERSION;
  plugin.style = "pair";
  plugin.author = "the pair-mtp developers";
  plugin.handle = handle;

  plugin.name = "mtp";
  plugin.info = "moment tensor potentials, pair style mtp";
  plugin.creator.v1 = create_mtp;
  register_style(&plugin, lmp);

  plugin.name = "mtp/extrapolation";
  plugin.info = "moment tensor potentials with extrapolation grades, pair style mtp/extrapolation";
  plugin.creator.v1 = create_mtp_extrapolation;
  register_style(&plugin, lmp);

  plugin.style = "compute";
  plugin.name = "mtp/grade";
  plugin.info = "extrapolation grades of pair style mtp/extrapolation, compute style mtp/grade";
  plugin.creator.v2 = create_mtp_grade;
  register_style(&plugin, lmp);

  plugin.style = "fix";
  plugin.name = "mtp/rollback";
  plugin.info = "keeps the latest state with trusted extrapolation grades and puts it back, fix style mtp/rollback";
  plugin.creator.v2 = create_mtp_rollback;
  register_style(&plugin, lmp);

  plugin.name = "mtp/hnemd";
  plugin.info = "driving force of homogeneous non-equilibrium molecular dynamics, fix style mtp/hnemd";
  plugin.creator.v2 = create_mtp_hnemd;
  register_style(&plugin, lmp);
}

}    // extern "C"
