// SPDX-License-Identifier: GPL-2.0-or-later
// Registers styles with a LAMMPS that loads a plugin.
//
// The structure is LAMMPS' documented plugin interface (Developer guide, "Writing plugins"). It is declared here because binary distributions of
// LAMMPS do not ship lammpsplugin.h.
#pragma once

#include "library.h"
#include "pair.h"
#include "utils.h"

#include <string>

extern "C" {

typedef void *(lammpsplugin_factory1)(LAMMPS_NS::LAMMPS *);
typedef void *(lammpsplugin_factory2)(LAMMPS_NS::LAMMPS *, int, char **);

typedef struct {
  const char *version, *style, *name, *info, *author;
  union {
    lammpsplugin_factory1 *v1;
    lammpsplugin_factory2 *v2;
  } creator;
  void *handle;
} lammpsplugin_t;

typedef void (*lammpsplugin_regfunc)(lammpsplugin_t *, void *);
}

namespace LAMMPS_NS {

// LAMMPS' classes change from version to version, and LAMMPS itself compares versions only where the `plugin` command loads the file. The library
// interface alone keeps its layout, so it is what asks and warns.
inline void check_version(void *lmp, const std::string &file)
{
  if (lammps_version(lmp) == utils::date2num(MTP_LAMMPS_VERSION) || lammps_extract_setting(lmp, "world_rank") != 0) return;
  const std::string warning = file + " was built for LAMMPS " MTP_LAMMPS_VERSION ", this is version " + std::to_string(lammps_version(lmp)) +
                              ": it may crash or compute nonsense; build it for this LAMMPS";
  lammps_error(lmp, LMP_ERROR_WARNING, warning.c_str());
}

// The three arguments of lammpsplugin_init
class Registration {
 public:
  Registration(void *l, void *handle, void *function) : lmp(l), register_style(reinterpret_cast<lammpsplugin_regfunc>(function))
  {
    plugin.version = MTP_LAMMPS_VERSION;
    plugin.author = "the pair-mtp developers";
    plugin.handle = handle;
  }
  void pair(const char *name, const char *info, lammpsplugin_factory1 *create)
  {
    plugin.style = "pair", plugin.name = name, plugin.info = info, plugin.creator.v1 = create;
    register_style(&plugin, lmp);
  }
  void compute(const char *name, const char *info, lammpsplugin_factory2 *create) { with_arguments("compute", name, info, create); }
  void fix(const char *name, const char *info, lammpsplugin_factory2 *create) { with_arguments("fix", name, info, create); }

 private:
  void *const lmp;
  const lammpsplugin_regfunc register_style;
  lammpsplugin_t plugin = {};

  void with_arguments(const char *kind, const char *name, const char *info, lammpsplugin_factory2 *create)
  {
    plugin.style = kind, plugin.name = name, plugin.info = info, plugin.creator.v2 = create;
    register_style(&plugin, lmp);
  }
};

template <class Style> void *create_pair(LAMMPS *lmp)
{
  return static_cast<Pair *>(new Style(lmp));
}

template <class Kind, class Style> void *create_with_arguments(LAMMPS *lmp, int narg, char **arg)
{
  return static_cast<Kind *>(new Style(lmp, narg, arg));
}

}    // namespace LAMMPS_NS
