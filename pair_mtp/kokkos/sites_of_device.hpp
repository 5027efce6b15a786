// SPDX-License-Identifier: BSD-3-Clause
// Evaluates atoms with Kokkos threads (site_of_team.hpp): the tables and the memory that kernels need, and how they are launched.
#pragma once

#include "site_of_team.hpp"

#include <Kokkos_Core.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <vector>

namespace mtp {

// A plan's tables in the memory of a device, for warps
template <class DeviceType> class DevicePlan {
 public:
  explicit DevicePlan(const Plan &plan)
  {
    on_device = plan.interleaved(threads_of_warp).placed([this](const auto &table) {
      using Entry = typename std::decay_t<decltype(table)>::value_type;
      using Tables = Kokkos::View<char *, typename DeviceType::memory_space>;
      const std::size_t size = table.size() * sizeof(Entry);
      Tables copy(Kokkos::view_alloc(Kokkos::WithoutInitializing, "mtp:plan"), size);
      const Kokkos::View<const char *, Kokkos::HostSpace, Kokkos::MemoryTraits<Kokkos::Unmanaged>> host(reinterpret_cast<const char *>(table.data()),
                                                                                                        size);
      Kokkos::deep_copy(copy, host);
      tables.push_back(copy);
      return reinterpret_cast<const Entry *>(copy.data());
    });
  }
  const PlanView &view() const { return on_device; }

 private:
  std::vector<Kokkos::View<char *, typename DeviceType::memory_space>> tables;
  PlanView on_device;
};

// Of a multiprocessor, each waiting while others work: 168 registers a thread, or 255 for grades, with which nothing is spilled. Where tables are too
// large for as many, fewer, with all registers that compilers want.
template <bool graded> constexpr int warps_at_once = graded ? 8 : 12;

// An odd distance between rows: threads that read a column each do not wait for each other.
MTP_FUNCTION constexpr int columns_of(int n_threads)
{
  return n_threads | 1;
}

// For teams of at most max_threads, all of whose memory is near the threads: compilers know that, and the distance between rows, and address it
// without computing. max_threads = 0: any team, `between_rows` being told; moments, chunk: the level of Kokkos' scratch (0 is near the threads, 1 in
// the device's memory) that each is in.
template <class T, bool graded, int max_threads> struct AtomsOfTeams {
  using value_type = SiteTotals;

  PlanView plan;
  DeviceAtoms atoms;
  DeviceSums sums;
  double *rows;    // [atom][n_active]
  int between_rows = columns_of(max_threads), level_of_moments = 0, level_of_chunk = 0;

  template <class Member> MTP_FUNCTION void operator()(const Member &member, SiteTotals &totals) const
  {
    const ThreadsOfTeam<Member> team{member};
    const std::size_t n = plan.n_moments;
    const auto &of_moments = member.team_scratch(max_threads > 0 ? 0 : level_of_moments);
    double *const moments = static_cast<double *>(of_moments.get_shmem(2 * n * sizeof(double)));
    const auto &of_chunk = member.team_scratch(max_threads > 0 ? 0 : level_of_chunk);
    T *const chunk = static_cast<T *>(of_chunk.get_shmem(ChunkRows(plan).n * static_cast<std::size_t>(between_rows) * sizeof(T)));
    int *const queue = static_cast<int *>(of_chunk.get_shmem((1 + team.capacity()) * sizeof(int)));
    using Memory = SiteMemory<T, 1, max_threads == 0 ? 0 : columns_of(max_threads)>;
    const Memory memory = {typename Memory::Moments(moments), typename Memory::Moments(moments + n), chunk, between_rows, Strided<int, 1>(queue)};
    SiteOfTeam<graded, ThreadsOfTeam<Member>, Memory> site(team, plan, atoms, memory);
    const std::size_t length = graded ? n_active(plan) : 0;
    for (int k = member.league_rank(); k < atoms.n; k += member.league_size()) site.evaluate(atoms.centres[k], sums, totals, rows + k * length);
  }
  MTP_FUNCTION void join(SiteTotals &to, const SiteTotals &from) const { to += from; }
  MTP_FUNCTION void init(SiteTotals &totals) const { totals = SiteTotals(); }
};

template <class T, bool graded> struct AtomsOfThreads {
  using value_type = SiteTotals;

  PlanView plan;
  DeviceAtoms atoms;
  DeviceSums sums;
  double *rows;         // [atom][n_active]
  double *workspace;    // [warp][row][thread of warp]: moments, adjoints, the rows of a chunk, the queue
  std::size_t n_threads;

  static MTP_FUNCTION std::size_t size_for_warp(const PlanView &plan)
  {
    constexpr std::size_t of_queue = queue_of_thread * sizeof(int) / sizeof(double);
    return threads_of_warp * (2 * static_cast<std::size_t>(plan.n_moments) + ChunkRows(plan).n + of_queue);
  }

  MTP_FUNCTION void operator()(int thread, SiteTotals &totals) const
  {
    const std::size_t n = plan.n_moments, length = graded ? n_active(plan) : 0;
    constexpr int lanes = threads_of_warp;
    double *const of_warp = workspace + thread / lanes * size_for_warp(plan), *const mine = of_warp + thread % lanes;
    double *const of_chunk = of_warp + 2 * n * lanes, *const of_queue = of_chunk + static_cast<std::size_t>(ChunkRows(plan).n) * lanes;
    using Memory = SiteMemory<T, lanes, lanes>;
    const Memory memory = {typename Memory::Moments(mine), typename Memory::Moments(mine + n * lanes),
                           reinterpret_cast<T *>(of_chunk) + thread % lanes, lanes,
                           Strided<int, lanes>(reinterpret_cast<int *>(of_queue) + thread % lanes)};
    const OneThread team;
    SiteOfTeam<graded, OneThread, Memory> site(team, plan, atoms, memory);
    for (std::size_t k = thread; k < static_cast<std::size_t>(atoms.n); k += n_threads)
      site.evaluate(atoms.centres[k], sums, totals, rows + k * length);
  }
  MTP_FUNCTION void join(SiteTotals &to, const SiteTotals &from) const { to += from; }
  MTP_FUNCTION void init(SiteTotals &totals) const { totals = SiteTotals(); }
};

// Bytes; 0 where it is not known
inline std::size_t shared_memory_of_multiprocessor()
{
#ifdef KOKKOS_ENABLE_CUDA
  return Kokkos::Cuda().cuda_device_prop().sharedMemPerMultiprocessor;
#else
  return 0;
#endif
}

// Launches the kernels, and keeps the memory that they need.
template <class DeviceType> class DeviceSites {
 public:
  // team_size 0: a thread an atom
  template <class T> SiteTotals evaluate(const PlanView &plan, const DeviceAtoms &atoms, const DeviceSums &sums, int team_size)
  {
    return launch<T, false>(plan, atoms, sums, team_size, nullptr);
  }

  // rows: [atoms.n][n_active], to hold dV_i/dtheta of each; all atoms must be this potential's
  SiteTotals evaluate_rows(const PlanView &plan, const DeviceAtoms &atoms, const DeviceSums &sums, int team_size, double *rows)
  {
    return launch<double, true>(plan, atoms, sums, team_size, rows);
  }

  std::size_t bytes() const { return workspace.extent(0) * sizeof(double); }

 private:
  using Workspace = Kokkos::View<double *, typename DeviceType::memory_space>;
  Workspace workspace;

  template <class T, bool graded>
  SiteTotals launch(const PlanView &plan, const DeviceAtoms &atoms, const DeviceSums &sums, int team_size, double *rows)
  {
    if (atoms.n == 0) return SiteTotals();
    if (team_size == 0) return launch_threads<T, graded>(plan, atoms, sums, rows);
    const std::size_t at_once = std::max(DeviceType().concurrency() / team_size, 1);
    const int n_teams = static_cast<int>(std::min<std::size_t>(at_once, atoms.n));
    const std::size_t moments = lines(2 * static_cast<std::size_t>(plan.n_moments) * sizeof(double));
    const auto chunk = [&](int columns) {
      return lines(ChunkRows(plan).n * columns * sizeof(T)) + lines((1 + rounds_of_queue * team_size) * sizeof(int));
    };
    const std::size_t near = Kokkos::TeamPolicy<DeviceType>(n_teams, team_size).scratch_size_max(0);
    const auto launch_with = [&](auto max_threads, auto teams_at_once, std::size_t bytes) {
      Kokkos::TeamPolicy<DeviceType, Kokkos::LaunchBounds<max_threads, teams_at_once>> policy(n_teams, team_size);
      policy.set_scratch_size(0, Kokkos::PerTeam(static_cast<int>(bytes)));
      return run(policy, AtomsOfTeams<T, graded, max_threads>{plan, atoms, sums, rows});
    };
    const auto launch_near = [&](auto max_threads, std::size_t bytes) {
      constexpr int many = warps_at_once<graded> * threads_of_warp / max_threads;
      const std::size_t of_kokkos = (team_size + 2) * (sizeof(SiteTotals) + sizeof(double)), of_device = 1024;    // besides, for each team
      const bool fit = many * (bytes + of_kokkos + of_device) <= shared_memory_of_multiprocessor();
      return fit ? launch_with(max_threads, std::integral_constant<int, many>(), bytes)
                 : launch_with(max_threads, std::integral_constant<int, 1>(), bytes);
    };
    const std::size_t of_warp = moments + chunk(columns_of(threads_of_warp)), of_team = moments + chunk(columns_of(threads_of_team));
    if (team_size <= threads_of_warp && of_warp <= near) return launch_near(std::integral_constant<int, threads_of_warp>(), of_warp);
    if (team_size <= threads_of_team && of_team <= near) return launch_near(std::integral_constant<int, threads_of_team>(), of_team);

    const int columns = columns_of(team_size);
    AtomsOfTeams<T, graded, 0> kernel{plan, atoms, sums, rows, columns, 0, 1};
    if (moments > near) kernel.level_of_moments = 1;
    else if (moments + chunk(columns) <= near) kernel.level_of_chunk = 0;
    std::size_t bytes[2] = {0, 0};
    bytes[kernel.level_of_moments] += moments;
    bytes[kernel.level_of_chunk] += chunk(columns);
    Kokkos::TeamPolicy<DeviceType> policy(n_teams, team_size);
    for (int level = 0; level < 2; level++)
      if (bytes[level]) policy.set_scratch_size(level, Kokkos::PerTeam(static_cast<int>(bytes[level])));
    return run(policy, kernel);
  }

  // On a device no more threads than it has registers for at a time: what one leaves in the caches serves it for its next atom.
  template <class T, bool graded> SiteTotals launch_threads(const PlanView &plan, const DeviceAtoms &atoms, const DeviceSums &sums, double *rows)
  {
    using Kernel = AtomsOfThreads<T, graded>;
    constexpr bool on_host = Kokkos::SpaceAccessibility<Kokkos::HostSpace, typename DeviceType::memory_space>::accessible;
    constexpr int warps_of_multiprocessor = 64, warps = 8;
    const std::size_t all = DeviceType().concurrency(), at_once = on_host ? all : all / warps_of_multiprocessor * warps;
    const std::size_t n = std::min<std::size_t>(at_once, atoms.n), n_warps = (n + threads_of_warp - 1) / threads_of_warp;
    const std::size_t size = n_warps * Kernel::size_for_warp(plan);
    if (workspace.extent(0) < size) {
      workspace = Workspace();    // not two at a time
      workspace = Workspace(Kokkos::view_alloc(Kokkos::WithoutInitializing, "mtp:workspace"), size);
    }
    return run(Kokkos::RangePolicy<DeviceType>(0, static_cast<int>(n)), Kernel{plan, atoms, sums, rows, workspace.data(), n});
  }

  // Kokkos puts the scratch of one team behind that of another as it is: whole lines keep the doubles of all teams aligned
  static std::size_t lines(std::size_t n_bytes) { return (n_bytes / 64 + 2) * 64; }

  template <class Policy, class Kernel> static SiteTotals run(const Policy &policy, const Kernel &kernel)
  {
    SiteTotals totals;
    Kokkos::parallel_reduce("mtp", policy, kernel, totals);
    return totals;
  }
};

}    // namespace mtp
