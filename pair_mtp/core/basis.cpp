// SPDX-License-Identifier: BSD-3-Clause
// A scalar contraction of moment tensors is a multigraph: a vertex is a moment (mu, nu), an edge a contracted pair of indices, nu the degree.
// Distinct graphs are distinct basis functions. A connected graph is evaluated by joining vertex subsets two at a time; the value of a subset is
// a tensor with one symmetric group of open indices a vertex. Subsets that look alike in different graphs are computed once.
#include "basis.hpp"

#include "error.hpp"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <set>

namespace mtp {
namespace {

constexpr int max_factors = 4;    // moments in one scalar: five-body functions, as in the bases that MLIP ships

using Exponents = std::array<int, 3>;    // of x, y, z: one component of a symmetric tensor

struct Vertex {
  int mu, nu;
  int level() const { return 2 + 4 * mu + nu; }
  bool operator<(const Vertex &other) const { return mu != other.mu ? mu < other.mu : nu < other.nu; }
  bool operator==(const Vertex &other) const { return mu == other.mu && nu == other.nu; }
};

// Vertices and the number of edges between each two; degrees that the edges do not use up are open indices.
struct Graph {
  std::vector<Vertex> vertices;
  std::vector<std::vector<int>> edges;

  int size() const { return static_cast<int>(vertices.size()); }
  int open(int v) const { return vertices[v].nu - std::accumulate(edges[v].begin(), edges[v].end(), 0); }
  int level() const
  {
    int sum = 0;
    for (const auto &v : vertices) sum += v.level();
    return sum;
  }
  Graph restricted_to(const std::vector<int> &subset) const
  {
    Graph part;
    for (int u : subset) {
      part.vertices.push_back(vertices[u]);
      part.edges.emplace_back();
      for (int v : subset) part.edges.back().push_back(edges[u][v]);
    }
    return part;
  }
  std::vector<int> key() const
  {
    std::vector<int> numbers{size()};
    for (const auto &v : vertices) numbers.insert(numbers.end(), {v.mu, v.nu});
    for (int u = 0; u < size(); u++) numbers.insert(numbers.end(), edges[u].begin(), edges[u].begin() + u);
    return numbers;
  }
  bool connected() const
  {
    std::vector<int> reached{0};
    std::vector<bool> seen(size(), false);
    seen[0] = true;
    for (std::size_t i = 0; i < reached.size(); i++)
      for (int v = 0; v < size(); v++)
        if (edges[reached[i]][v] && !seen[v]) {
          seen[v] = true;
          reached.push_back(v);
        }
    return static_cast<int>(reached.size()) == size();
  }
};

// The orders of the vertices that give the graph its smallest key; there are several where the graph has symmetries.
struct Canonical {
  Graph graph;
  std::vector<std::vector<int>> orders;
};

Canonical canonical(const Graph &graph)
{
  std::vector<int> order(graph.size());
  std::iota(order.begin(), order.end(), 0);
  const auto before = [&](int u, int v) { return graph.vertices[u] < graph.vertices[v]; };
  std::stable_sort(order.begin(), order.end(), before);
  Canonical best;
  std::vector<int> best_key;

  // permute inside each run of equal vertices only
  const std::function<void(int)> permute = [&](int position) {
    if (position == graph.size()) {
      Graph candidate = graph.restricted_to(order);
      std::vector<int> key = candidate.key();
      if (best.orders.empty() || key < best_key) {
        best = {std::move(candidate), {order}};
        best_key = std::move(key);
      } else if (key == best_key) {
        best.orders.push_back(order);
      }
      return;
    }
    for (int other = position; other < graph.size(); other++) {
      if (!(graph.vertices[order[other]] == graph.vertices[order[position]])) break;
      std::swap(order[position], order[other]);
      permute(position + 1);
      std::swap(order[position], order[other]);
    }
  };
  permute(0);
  return best;
}

std::vector<Exponents> components(int rank)
{
  std::vector<Exponents> all;
  for (int a = rank; a >= 0; a--)
    for (int b = rank - a; b >= 0; b--) all.push_back({a, b, rank - a - b});
  return all;
}

int multinomial(const Exponents &e)
{
  const auto factorial = [](int n) {
    int product = 1;
    for (int i = 2; i <= n; i++) product *= i;
    return product;
  };
  return factorial(e[0] + e[1] + e[2]) / (factorial(e[0]) * factorial(e[1]) * factorial(e[2]));
}

// All connected scalar graphs up to the level, each once, ordered by level.
std::vector<Graph> connected_scalars(int level)
{
  std::vector<Vertex> kinds;
  for (int mu = 0; 2 + 4 * mu <= level; mu++)
    for (int nu = 0; 2 * (2 + nu) + 4 * mu <= level || (nu == 0 && 2 + 4 * mu <= level); nu++) kinds.push_back({mu, nu});
  std::sort(kinds.begin(), kinds.end());

  std::map<std::vector<int>, Graph> found;
  Graph graph;
  const std::function<void(int, int)> connect = [&](int u, int v) {
    const int n = graph.size();
    if (u == n) {
      if (graph.connected()) {
        Graph unique = canonical(graph).graph;
        found.emplace(unique.key(), unique);
      }
      return;
    }
    if (v == n) {
      if (graph.open(u) == 0) connect(u + 1, u + 2);
      return;
    }
    const int most = std::min(graph.open(u), graph.open(v));
    for (int count = most; count >= 0; count--) {
      graph.edges[u][v] = graph.edges[v][u] = count;
      connect(u, v + 1);
    }
    graph.edges[u][v] = graph.edges[v][u] = 0;
  };
  const std::function<void(std::size_t, int)> add_vertex = [&](std::size_t first, int left) {
    const int n = graph.size();
    if (n > 0) {
      int degrees = 0;
      for (const auto &v : graph.vertices) degrees += v.nu;
      if (degrees % 2 == 0 && degrees >= 2 * (n - 1)) {
        graph.edges.assign(n, std::vector<int>(n, 0));
        connect(0, 1);
      }
      if (graph.vertices[0].nu == 0 || n == max_factors) return;    // a scalar moment connects to nothing
    }
    for (std::size_t k = first; k < kinds.size(); k++) {
      if (kinds[k].level() > left || (n > 0 && kinds[k].nu == 0)) continue;
      graph.vertices.push_back(kinds[k]);
      add_vertex(k, left - kinds[k].level());
      graph.vertices.pop_back();
    }
  };
  add_vertex(0, level);

  std::vector<Graph> graphs;
  for (const auto &entry : found) graphs.push_back(entry.second);
  std::stable_sort(graphs.begin(), graphs.end(), [](const Graph &l, const Graph &r) { return l.level() < r.level(); });
  return graphs;
}

// Fills the tables of a Basis; a component that was computed before is found again by its key.
class Builder {
 public:
  explicit Builder(int level)
  {
    std::map<std::vector<int>, int> scalar_of;    // multiset of connected scalars -> moment
    struct Scalar {
      int level, moment;
    };
    std::vector<Scalar> scalars;
    const std::vector<Graph> graphs = connected_scalars(level);

    // The basic moments come first in the tables, complete tensors, radial function by radial function.
    std::set<Vertex> used;
    for (const auto &graph : graphs) used.insert(graph.vertices.begin(), graph.vertices.end());
    for (const auto &v : used) {
      basis.n_radial = std::max(basis.n_radial, v.mu + 1);
      for (const auto &e : components(v.nu)) {
        known[component_key({{v}, {{0}}}, {e})] = basis.n_basic();
        basis.basic.push_back({v.mu, e[0], e[1], e[2]});
      }
    }
    basis.n_moments = basis.n_basic();

    std::vector<int> value;
    for (const auto &graph : graphs) value.push_back(component(graph, std::vector<Exponents>(graph.size(), Exponents{0, 0, 0})));

    // Every multiset of connected scalars within the level; taking one away leaves a scalar that exists already.
    std::vector<std::pair<int, std::vector<int>>> multisets;
    std::vector<int> chosen;
    const std::function<void(int, int, int)> choose = [&](int first, int sum, int factors) {
      if (!chosen.empty()) multisets.emplace_back(sum, chosen);
      for (int g = first; g < static_cast<int>(graphs.size()); g++) {
        if (sum + graphs[g].level() > level || factors + graphs[g].size() > max_factors) continue;
        chosen.push_back(g);
        choose(g, sum + graphs[g].level(), factors + graphs[g].size());
        chosen.pop_back();
      }
    };
    choose(0, 0, 0);
    std::stable_sort(multisets.begin(), multisets.end(), [](const auto &l, const auto &r) { return l.first < r.first; });
    for (const auto &[sum, members] : multisets) {
      int moment = value[members.back()];
      if (members.size() > 1) {
        const std::vector<int> rest(members.begin(), members.end() - 1);
        const int other = scalar_of.at(rest);
        moment = basis.n_moments++;
        basis.products.push_back({other, value[members.back()], 1, moment});
      }
      scalar_of[members] = moment;
      scalars.push_back({sum, moment});
    }
    for (const auto &s : scalars) basis.scalars.push_back(s.moment);
  }

  Basis basis;

 private:
  std::map<std::vector<int>, int> known;                 // component -> moment
  std::map<std::vector<int>, std::uint32_t> split_of;    // canonical graph -> the subset that it is cut into (bit mask)
  std::set<std::vector<int>> computed;                   // canonical graphs of which components exist

  std::vector<int> component_key(const Graph &graph, const std::vector<Exponents> &indices) const
  {
    std::vector<int> key = graph.key();
    for (const auto &e : indices) key.insert(key.end(), e.begin(), e.end());
    return key;
  }

  // The moment that holds a component of a graph's tensor; `indices` are the open indices at each vertex.
  int component(const Graph &graph, const std::vector<Exponents> &indices)
  {
    const Canonical form = canonical(graph);
    std::vector<Exponents> best;
    for (const auto &order : form.orders) {
      std::vector<Exponents> permuted;
      for (int v : order) permuted.push_back(indices[v]);
      if (best.empty() || permuted < best) best = permuted;
    }
    const std::vector<int> key = component_key(form.graph, best);
    const auto found = known.find(key);
    if (found != known.end()) return found->second;
    const int moment = multiply(form.graph, best);
    known[key] = moment;
    return moment;
  }

  int multiply(const Graph &graph, const std::vector<Exponents> &indices)
  {
    const std::uint32_t mask = split(graph);
    std::vector<int> left, right;
    for (int v = 0; v < graph.size(); v++) ((mask >> v & 1) ? left : right).push_back(v);
    struct Bundle {
      int left, right, count;
    };
    std::vector<Bundle> bundles;
    for (std::size_t u = 0; u < left.size(); u++)
      for (std::size_t v = 0; v < right.size(); v++)
        if (graph.edges[left[u]][right[v]]) bundles.push_back({static_cast<int>(u), static_cast<int>(v), graph.edges[left[u]][right[v]]});
    std::vector<Exponents> left_indices, right_indices;
    for (int u : left) left_indices.push_back(indices[u]);
    for (int v : right) right_indices.push_back(indices[v]);
    const Graph left_graph = graph.restricted_to(left), right_graph = graph.restricted_to(right);

    std::map<std::pair<int, int>, int> rows;
    const std::function<void(std::size_t, int)> contract = [&](std::size_t b, int coefficient) {
      if (b == bundles.size()) {
        int p = component(left_graph, left_indices), q = component(right_graph, right_indices);
        if (p > q) std::swap(p, q);
        rows[{p, q}] += coefficient;
        return;
      }
      auto &l = left_indices[bundles[b].left], &r = right_indices[bundles[b].right];
      for (const auto &e : components(bundles[b].count)) {
        for (int i = 0; i < 3; i++) l[i] += e[i], r[i] += e[i];
        contract(b + 1, coefficient * multinomial(e));
        for (int i = 0; i < 3; i++) l[i] -= e[i], r[i] -= e[i];
      }
    };
    contract(0, 1);
    const int moment = basis.n_moments++;
    for (const auto &[factors, coefficient] : rows) basis.products.push_back({factors.first, factors.second, coefficient, moment});
    return moment;
  }

  // How to cut a graph in two: the tree of cuts with the fewest multiplications, tensors that exist already counted as free.
  std::uint32_t split(const Graph &graph)
  {
    const auto found = split_of.find(graph.key());
    if (found != split_of.end()) return found->second;
    const int n = graph.size();
    std::map<std::uint32_t, double> cost;
    std::map<std::uint32_t, std::uint32_t> best;
    const std::uint32_t all = (1u << n) - 1;
    for (std::uint32_t set = 1; set <= all; set++) {
      std::vector<int> members;
      for (int v = 0; v < n; v++)
        if (set >> v & 1) members.push_back(v);
      if (members.size() == 1) {
        cost[set] = 0;
        continue;
      }
      const Graph part = graph.restricted_to(members);
      double n_components = 1;
      for (int v = 0; v < part.size(); v++) n_components *= (part.open(v) + 1) * (part.open(v) + 2) / 2.0;
      const bool exists = set != all && computed.count(canonical(part).graph.key());
      cost[set] = std::numeric_limits<double>::infinity();
      for (std::uint32_t half = (set - 1) & set; half; half = (half - 1) & set) {
        const std::uint32_t rest = set ^ half;
        if (half < rest) continue;
        double sums = 1;
        for (int u = 0; u < n; u++)
          for (int v = 0; v < n; v++)
            if ((half >> u & 1) && (rest >> v & 1)) sums *= (graph.edges[u][v] + 1) * (graph.edges[u][v] + 2) / 2.0;
        const double total = cost[half] + cost[rest] + n_components * sums;
        if (total < cost[set]) {
          cost[set] = total;
          best[set] = half;
        }
      }
      if (exists) cost[set] = 0;
    }
    // remember the cuts of the subsets that this tree uses
    const std::function<void(std::uint32_t)> keep = [&](std::uint32_t set) {
      std::vector<int> members;
      for (int v = 0; v < n; v++)
        if (set >> v & 1) members.push_back(v);
      if (members.size() == 1) return;
      const Canonical form = canonical(graph.restricted_to(members));
      const std::vector<int> key = form.graph.key();
      if (split_of.count(key)) return;
      std::uint32_t mask = 0;
      const auto &order = form.orders.front();
      for (int v = 0; v < static_cast<int>(order.size()); v++)
        if (best[set] >> members[order[v]] & 1) mask |= 1u << v;
      split_of[key] = mask;
      computed.insert(key);
      keep(best[set]);
      keep(set ^ best[set]);
    };
    keep(all);
    return split_of.at(graph.key());
  }
};

}    // namespace

bool operator==(const Basis &left, const Basis &right)
{
  const auto same_basic = [](const BasicMoment &l, const BasicMoment &r) { return l.mu == r.mu && l.a == r.a && l.b == r.b && l.c == r.c; };
  const auto same_product = [](const Product &l, const Product &r) {
    return l.p == r.p && l.q == r.q && l.coefficient == r.coefficient && l.t == r.t;
  };
  return left.n_radial == right.n_radial && left.n_moments == right.n_moments && left.scalars == right.scalars &&
         std::equal(left.basic.begin(), left.basic.end(), right.basic.begin(), right.basic.end(), same_basic) &&
         std::equal(left.products.begin(), left.products.end(), right.products.begin(), right.products.end(), same_product);
}

void Basis::check(const std::string &where) const
{
  const auto fail = [&](const std::string &what) { throw Error(Error::Kind::format, where + ": " + what); };
  const int n_b = n_basic();
  if (n_b > n_moments) fail("more basic moments than moments");
  if (static_cast<std::size_t>(n_moments) > basic.size() + products.size())
    fail(std::to_string(n_moments) + " moments are announced, but " + std::to_string(n_b) + " basic moments and " + std::to_string(products.size()) +
         " products fill fewer");
  for (int k = 0; k < n_b; k++) {
    const auto &m = basic[k];
    if (m.mu < 0 || m.mu >= n_radial)
      fail("alpha_index_basic row " + std::to_string(k) + " names radial function " + std::to_string(m.mu) + ", but there are " +
           std::to_string(n_radial));
    for (int exponent : {m.a, m.b, m.c})
      if (exponent < 0 || exponent > 64)
        fail("alpha_index_basic row " + std::to_string(k) + " has an impossible exponent: " + std::to_string(exponent));
  }
  std::vector<char> is_read(n_moments, 0);
  for (std::size_t row = 0; row < products.size(); row++) {
    const auto &r = products[row];
    for (int index : {r.p, r.q, r.t})
      if (index < 0 || index >= n_moments)
        fail("alpha_index_times row " + std::to_string(row) + " names moment " + std::to_string(index) + " of " + std::to_string(n_moments));
    is_read[r.p] = is_read[r.q] = 1;
    if (is_read[r.t]) fail("alpha_index_times row " + std::to_string(row) + " changes a moment that an earlier row has read");
    if (r.t < n_b) fail("alpha_index_times row " + std::to_string(row) + " writes to a basic moment");
  }
  for (int s : scalars)
    if (s < 0 || s >= n_moments) fail("alpha_moment_mapping names moment " + std::to_string(s) + " of " + std::to_string(n_moments));
}

Basis generate_basis(int level)
{
  if (level < 2 || level > 40)
    throw Error(Error::Kind::argument, "level " + std::to_string(level) + ": a basis has a level from 2 to 40 (typically 8 to 24)");
  return Builder(level).basis;
}

}    // namespace mtp
