/// @file
/// backward() gives the gradients of docs/mathematics.md, Backward, with the same bits for any threads and any place in the layout.
///
/// Two witnesses, both in double, neuron by neuron. `by_tangents` never goes backwards: it moves each input of the forward pass in turn
/// (every a[m], every parameter, the initial state) and follows the derivative of all later steps by forward substitution, which is the
/// dense Jacobian of (S9). `by_unrolling` is the chain rule through the recorded steps, last first; it is linear in time, so it serves the
/// large layouts. That both agree is a test of its own, together with the paper's form (S16), with kernels instead of states.
#include <algorithm>
#include <exodus/cuba_lif.hpp>
#include <exodus/exp_leak.hpp>
#include <exodus/kernel_filter.hpp>
#include <functional>

#include "lif_population.hpp"

namespace exodus::test {
namespace {

/// What a backward pass knows of one neuron, in double.
struct Recording {
  Scalars<double> p;
  std::vector<double> a, u, s, h, e, q;
  double u0 = 0, s0 = 0;           // the initial state
  double grad_u = 0, grad_s = 0;   // the gradient of the final state
  std::size_t steps() const { return u.size(); }
};

/// The order of the parameters of Lif.
enum { alpha, threshold, gain, reset_amount, v_min, parameters };

struct Gradients {
  std::vector<double> a;
  double u0 = 0, s0 = 0;
  double p[parameters] = {};
  double largest = 0;              ///< the largest magnitude of dL/du in this neuron, to which rounding errors are relative
  double scale[parameters] = {};   ///< the same for p: sum over the steps of `largest` times the factor of dL/du there
};

/// How much of u[n] is lost in the clamp: all or nothing.
bool clipped(const Scalars<double>& p, double u) {
  return p.clamps && u == p.v_min;
}

/// dL by moving one input: a[source], or the initial state by du and ds, or the parameters by `move`. Follows the steps from `first` on.
double tangent(const Recording& r, Method method, std::size_t first, double du, double ds, const double (&move)[parameters],
               std::size_t source) {
  const Scalars<double>& p = r.p;
  double loss = 0;
  for (std::size_t n = first; n < r.steps(); ++n) {
    const double u = n == 0 ? r.u0 : r.u[n - 1], s = n == 0 ? r.s0 : r.s[n - 1];
    const double felt = method == Method::slayer ? 0 : ds;   // the gradient that reaches the previous spike through the reset
    double dv = move[gain] * r.a[n] + (n == source ? p.gain : 0);
    if (p.reset == Reset::none) {
      dv += move[alpha] * u + p.alpha * du;
    } else if (p.reset == Reset::zero) {
      const double open = s > 0 ? 0 : 1;
      dv += move[alpha] * open * u + p.alpha * (open * du - u * felt);
    } else if (p.timing == ResetTiming::before_decay) {
      dv += move[alpha] * (u - p.reset_amount * s) + p.alpha * (du - move[reset_amount] * s - p.reset_amount * felt);
    } else {
      dv += move[alpha] * u + p.alpha * du - move[reset_amount] * s - p.reset_amount * felt;
    }
    du = clipped(p, r.u[n]) ? move[v_min] : dv;
    ds = r.h[n] * (du - move[threshold]);
    loss += r.e[n] * ds + r.q[n] * du;
  }
  return loss + r.grad_u * du + r.grad_s * ds;
}

Gradients by_tangents(const Recording& r, Method method) {
  constexpr std::size_t nowhere = ~std::size_t{0};
  const double still[parameters] = {};
  Gradients g;
  for (std::size_t m = 0; m < r.steps(); ++m) g.a.push_back(tangent(r, method, m, 0, 0, still, m));
  g.u0 = tangent(r, method, 0, 1, 0, still, nowhere);
  g.s0 = tangent(r, method, 0, 0, 1, still, nowhere);
  for (int k = 0; k < parameters; ++k) {
    double move[parameters] = {};
    move[k] = 1;
    g.p[k] = tangent(r, method, 0, 0, 0, move, nowhere);
  }
  return g;
}

Gradients by_unrolling(const Recording& r, Method method) {
  const Scalars<double>& p = r.p;
  Gradients g;
  g.a.resize(r.steps());
  const auto add = [&g](int k, double to, double factor) { g.p[k] += to * factor, g.scale[k] += std::fabs(factor); };
  double from_u = r.grad_u, from_s = r.grad_s;
  for (std::size_t n = r.steps(); n-- > 0;) {
    const double u = n == 0 ? r.u0 : r.u[n - 1], s = n == 0 ? r.s0 : r.s[n - 1];
    const double to_s = r.e[n] + from_s;
    double to_u = r.q[n] + from_u + r.h[n] * to_s;
    // h is computed with differences, so its error is some roundings of its peak, about 1. Hence the term with only e.
    g.largest = std::max({g.largest, std::fabs(to_u), std::fabs(r.q[n]), std::fabs(r.h[n] * r.e[n]), 0.03 * std::fabs(r.e[n])});
    if (n + 1 == r.steps()) g.largest = std::max({g.largest, std::fabs(r.grad_u), std::fabs(r.h[n] * r.grad_s)});
    add(threshold, r.h[n] * to_s, -1);
    if (clipped(p, r.u[n])) {
      add(v_min, to_u, 1);
      to_u = 0;
    }
    add(gain, to_u, r.a[n]);
    g.a[n] = to_u * p.gain;
    if (p.reset == Reset::none) {
      add(alpha, to_u, u);
      from_u = to_u * p.alpha, from_s = 0;
    } else if (p.reset == Reset::zero) {
      const double open = s > 0 ? 0 : 1;
      add(alpha, to_u, open * u);
      from_u = to_u * p.alpha * open, from_s = -to_u * p.alpha * u;
    } else if (p.timing == ResetTiming::before_decay) {
      add(alpha, to_u, u - p.reset_amount * s);
      add(reset_amount, to_u, -p.alpha * s);
      from_u = to_u * p.alpha, from_s = -to_u * p.alpha * p.reset_amount;
    } else {
      add(alpha, to_u, u);
      add(reset_amount, to_u, -s);
      from_u = to_u * p.alpha, from_s = -to_u * p.reset_amount;
    }
    if (method == Method::slayer) from_s = 0;
  }
  g.u0 = from_u, g.s0 = from_s;
  for (double& scale : g.scale) scale *= g.largest;
  return g;
}

/// (S16): lam[n] = q[n] + h[n] (e[n] + sum_{k>n} nu[k-1-n] lam[k]), d[n] = sum_{m>=n} eps[m-n] lam[m], with SLAYER's nu left out.
std::vector<double> by_kernels(const Recording& r, Method method) {
  const Scalars<double>& p = r.p;
  const double rho = p.timing == ResetTiming::before_decay ? p.alpha * p.reset_amount : p.reset_amount;
  const auto eps = [&](std::size_t j) { return std::pow(p.alpha, static_cast<double>(j)); };
  const auto nu = [&](std::size_t j) { return method == Method::slayer || p.reset == Reset::none ? 0.0 : -rho * eps(j); };
  const std::size_t steps = r.steps();
  std::vector<double> lam(steps), d(steps);
  for (std::size_t n = steps; n-- > 0;) {
    double total = r.e[n];
    for (std::size_t k = n + 1; k < steps; ++k) total += nu(k - 1 - n) * lam[k];
    lam[n] = r.q[n] + r.h[n] * total;
  }
  for (std::size_t n = 0; n < steps; ++n) {
    for (std::size_t m = n; m < steps; ++m) d[n] += eps(m - n) * lam[m];
    d[n] *= p.gain;
  }
  return d;
}

constexpr Method methods[] = {Method::exodus, Method::slayer, Method::bptt};

/// A population after its forward pass, with a loss.
template <class V>
struct Experiment {
  Layout layout;
  Population<V> p;
  Surrogate<V> surrogate;
  bool with_state = false, with_grad_spikes = true, with_grad_potential = false, with_grad_final = false, with_values = false;
  Input<V> current, potential, u0, s0, grad_spikes, grad_potential, grad_u, grad_s, values;
  std::vector<V> spikes_;

  Experiment(Random& random, const Layout& shape, Population<V> population, const Surrogate<V>& curve, int offset = 0)
      : layout(shape), p(std::move(population)), surrogate(curve) {
    const std::int64_t count = elements(layout), lanes = neurons(layout);
    for (Input<V>* array : {&current, &potential, &grad_spikes, &grad_potential, &values}) *array = Input<V>(count, offset);
    for (Input<V>* array : {&u0, &s0, &grad_u, &grad_s}) *array = Input<V>(lanes, offset);
    current.fill(random, -0.8, p.max_spikes == 1 ? 1.2 : 3.0);
    for (Input<V>* array : {&grad_spikes, &grad_potential, &grad_u, &grad_s, &u0}) array->fill(random, -1, 1);
    for (std::int64_t j = 0; j < lanes; ++j) s0[j] = static_cast<V>(random.below(p.max_spikes == 1 ? 2 : 3));
    values.fill(random, 0, 1);
    with_state = random.coin(), with_grad_potential = random.coin(), with_grad_final = random.coin();
    run();
  }

  void run() {
    spikes_.resize(static_cast<std::size_t>(elements(layout)));
    for (std::int64_t j = 0; j < neurons(layout); ++j) {
      const Scalars<V> q = p.scalars(j);
      V u = with_state ? u0[j] : V(0), s = with_state ? s0[j] : V(0);
      for (std::int64_t n = 0; n < layout.time; ++n) {
        const std::int64_t k = at(layout, j, n);
        potential[k] = u = test::potential(q, u, s, current[k]);
        spikes_[static_cast<std::size_t>(k)] = s = spikes(q, u);
      }
    }
  }

  /// Neuron j as the witnesses see it.
  Recording recording(std::int64_t j) const {
    Recording r;
    r.p = p.scalars(j).template as<double>();
    const auto steps = static_cast<std::size_t>(layout.time);
    for (std::vector<double>* series : {&r.a, &r.u, &r.s, &r.h, &r.e, &r.q}) series->resize(steps);
    for (std::size_t n = 0; n < steps; ++n) {
      const std::int64_t k = at(layout, j, static_cast<std::int64_t>(n));
      r.a[n] = static_cast<double>(current[k]);
      r.u[n] = static_cast<double>(potential[k]);
      r.s[n] = static_cast<double>(spikes_[static_cast<std::size_t>(k)]);
      r.h[n] = with_values ? static_cast<double>(values[k]) : test::surrogate(surrogate, r.u[n], r.p.threshold);
      r.e[n] = with_grad_spikes ? static_cast<double>(grad_spikes[k]) : 0;
      r.q[n] = with_grad_potential ? static_cast<double>(grad_potential[k]) : 0;
    }
    if (with_state) r.u0 = static_cast<double>(u0[j]), r.s0 = static_cast<double>(s0[j]);
    if (with_grad_final) r.grad_u = static_cast<double>(grad_u[j]), r.grad_s = static_cast<double>(grad_s[j]);
    return r;
  }

  typename Lif<V>::Backward inputs() const {
    typename Lif<V>::Backward arrays;
    arrays.potential = potential.data();
    if (with_state) arrays.initial = {u0.data(), s0.data()};
    if (with_grad_spikes) arrays.grad_spikes = grad_spikes.data();
    if (with_grad_potential) arrays.grad_potential = grad_potential.data();
    if (with_grad_final) arrays.grad_final = {grad_u.data(), grad_s.data()};
    return arrays;
  }

  Surrogate<V> curve() const {
    Surrogate<V> sg = surrogate;
    if (with_values) sg.values = values.data();
    return sg;
  }
};

/// What a call writes.
template <class V>
struct Results {
  Output<V> current, u0, s0;
  Output<double> alpha, threshold, gain, reset_amount, v_min;
  bool tied_amount, tied_gain;

  Results(const Layout& layout, const Population<V>& p, int offset)
      : current(elements(layout), offset),
        u0(neurons(layout), offset),
        s0(neurons(layout), offset),
        alpha(p.alpha.count()),
        threshold(p.threshold.count()),
        gain(p.gain.count()),
        reset_amount(p.reset_amount.given() ? p.reset_amount.count() : p.threshold.count()),
        v_min(p.v_min.count()),
        tied_amount(!p.reset_amount.given()),
        tied_gain(p.gain_follows_alpha) {}

  Output<double>* list(int k) {
    Output<double>* const all[] = {&alpha, &threshold, &gain, &reset_amount, &v_min};
    return all[k];
  }

  bool same_bits(const Results& other) const {
    return current.same_bits(other.current) && u0.same_bits(other.u0) && s0.same_bits(other.s0) && alpha.same_bits(other.alpha) &&
           threshold.same_bits(other.threshold) && gain.same_bits(other.gain) && reset_amount.same_bits(other.reset_amount) &&
           v_min.same_bits(other.v_min);
  }
};

/// What of the results a call asks for.
struct Wanted {
  bool current = true, state = true, parameter[parameters] = {true, true, true, true, true};

  static Wanted any(Random& random) {
    Wanted wanted{random.coin(), random.coin(), {}};
    for (bool& parameter : wanted.parameter) parameter = random.coin();
    return wanted;
  }
};

template <class V>
void call(const Experiment<V>& experiment, Method method, const Wanted& wanted, int threads, Results<V>& results) {
  typename Lif<V>::Backward arrays = experiment.inputs();
  if (wanted.current) arrays.grad_current = results.current.data();
  if (wanted.state) arrays.grad_initial = {results.u0.data(), results.s0.data()};
  double** const grads[] = {&arrays.grad.alpha, &arrays.grad.threshold, &arrays.grad.gain, &arrays.grad.reset_amount, &arrays.grad.v_min};
  for (int k = 0; k < parameters; ++k) {
    const bool tied = (k == reset_amount && results.tied_amount) || (k == gain && results.tied_gain);
    if (wanted.parameter[k] && !tied) *grads[k] = results.list(k)->data();
  }
  // Given only where it is documented to be needed.
  if (arrays.grad.gain != nullptr || (arrays.grad.alpha != nullptr && experiment.p.gain_follows_alpha)) {
    arrays.current = experiment.current.data();
  }
  const Lif<V> neuron = experiment.p.neuron();
  Workspace workspace = exodus::workspace(experiment.layout, neuron, method, experiment.curve(), arrays, threads);
  std::vector<double> memory((workspace.bytes + 7) / 8, -1e300);   // what lies in it must not matter
  workspace.data = memory.data();
  ASSERT_EQ(backward(experiment.layout, neuron, method, experiment.curve(), arrays, workspace), Status::ok);
}

template <class V>
constexpr double tolerance = std::is_same_v<V, float> ? 1e-5 : 1e-12;

/// Compares everything that a call writes with a witness.
template <class V>
void check(const Experiment<V>& experiment, Method method, const Wanted& wanted, int threads, int offset,
           const std::function<Gradients(const Recording&, Method)>& witness) {
  const Layout& layout = experiment.layout;
  const Population<V>& p = experiment.p;
  SCOPED_TRACE(describe(layout) + " method " + std::to_string(static_cast<int>(method)) + " " + p.describe() + " surrogate " +
               std::to_string(static_cast<int>(experiment.surrogate.kind)));
  Results<V> results(layout, p, offset);
  call(experiment, method, wanted, threads, results);
  if (testing::Test::HasFatalFailure()) return;

  std::vector<double> sums[parameters], scales[parameters];
  for (int k = 0; k < parameters; ++k) {
    sums[k].resize(static_cast<std::size_t>(results.list(k)->size()));
    scales[k].resize(sums[k].size());
  }
  for (std::int64_t j = 0; j < neurons(layout); ++j) {
    const Recording r = experiment.recording(j);
    const Gradients g = witness(r, method), sizes = by_unrolling(r, method);
    if (wanted.current) {
      for (std::int64_t n = 0; n < layout.time; ++n) {
        const double got = static_cast<double>(results.current[at(layout, j, n)]);
        ASSERT_NEAR(got, g.a[static_cast<std::size_t>(n)], tolerance<V> * sizes.largest * r.p.gain) << "neuron " << j << " step " << n;
      }
    }
    if (wanted.state) {
      ASSERT_NEAR(static_cast<double>(results.u0[j]), g.u0, tolerance<V> * sizes.largest) << "neuron " << j;
      ASSERT_NEAR(static_cast<double>(results.s0[j]), g.s0, tolerance<V> * sizes.largest * (std::fabs(r.u0) + r.p.reset_amount))
          << "neuron " << j;
    }
    const auto add = [&](int to, const Values<V>& values, int from, double sign) {
      const auto c = static_cast<std::size_t>(values.index(j));
      sums[to][c] += sign * g.p[from];
      scales[to][c] += sizes.scale[from];
    };
    add(alpha, p.alpha, alpha, 1);
    if (p.gain_follows_alpha) add(alpha, p.alpha, gain, -1);
    add(threshold, p.threshold, threshold, 1);
    if (!p.reset_amount.given()) add(threshold, p.threshold, reset_amount, 1);
    add(gain, p.gain, gain, 1);
    if (p.reset_amount.given()) add(reset_amount, p.reset_amount, reset_amount, 1);
    add(v_min, p.v_min, v_min, 1);
  }

  for (int k = 0; k < parameters; ++k) {
    Output<double>& got = *results.list(k);
    const bool tied = (k == reset_amount && results.tied_amount) || (k == gain && results.tied_gain);
    if (!wanted.parameter[k] || tied) {
      EXPECT_TRUE(got.untouched()) << "parameter " << k << " was not asked for";
      continue;
    }
    EXPECT_TRUE(got.zones_intact()) << "parameter " << k;
    for (std::int64_t c = 0; c < got.size(); ++c) {
      const auto l = static_cast<std::size_t>(c);
      ASSERT_NEAR(got[c], sums[k][l], tolerance<V> * scales[k][l]) << "parameter " << k << " value " << c;
    }
  }
  EXPECT_TRUE(wanted.current ? results.current.zones_intact() : results.current.untouched());
  EXPECT_TRUE(wanted.state ? results.u0.zones_intact() && results.s0.zones_intact() : results.u0.untouched() && results.s0.untouched());
}

/// Curves of every kind whose values keep gradients from growing, see population(). A reset to zero multiplies by -u h, so that curves
/// which do not fade far from the threshold have to be small there. Without a reset, potentials of hundreds of thresholds leave few bits
/// to the phase of the periodic curve, in float.
template <class V>
std::vector<Surrogate<V>> curves(Reset reset) {
  using K = SurrogateKind;
  const auto make = [](K kind, double scale, double a = 0, double b = 0, double c = 0) {
    Surrogate<V> s;
    s.kind = kind;
    s.scale = V(scale);
    s.shape[0] = V(a), s.shape[1] = V(b), s.shape[2] = V(c);
    return s;
  };
  const double everywhere = reset == Reset::zero ? 0.1 : 1;
  return {Surrogate<V>{},
          reset == Reset::none ? Surrogate<V>{} : make(K::periodic_exponential, everywhere, 0.5),
          make(K::boxcar, 1, 1),
          make(K::triangle, 1, 1),
          make(K::gaussian, 1, 0.1, 0.5),
          make(K::multi_gaussian, 1, 0.5, 0.15, 6),
          make(K::fast_sigmoid, 1, 5),
          make(K::atan, 1, 2),
          make(K::sigmoid, 1, 4),
          make(K::straight_through, everywhere)};
}

template <class V>
class BackwardIsExact : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(BackwardIsExact, Types, TypeName);

/// The witnesses themselves: three derivations, one gradient.
TEST(TheWitnesses, Agree) {
  Random random(1);
  const Layout layout{1, 40, 3};
  const auto expect_near = [](double a, double b, double scale) { EXPECT_NEAR(a, b, 1e-12 * (1 + scale)); };
  for (const Method method : methods) {
    for (const ResetForm& form : reset_forms) {
      for (const Shape v_min_given : {Shape::absent, Shape::scalar}) {
        for (const std::int64_t max_spikes : {1, 0}) {
          const Shapes shapes{Shape::scalar, Shape::scalar, Shape::scalar, Shape::scalar, v_min_given};
          const Experiment<double> experiment(random, layout, population<double>(random, layout, form, max_spikes, shapes), {});
          for (std::int64_t j = 0; j < 3; ++j) {
            Recording r = experiment.recording(j);
            const Gradients a = by_tangents(r, method), b = by_unrolling(r, method);
            for (std::size_t n = 0; n < a.a.size(); ++n) expect_near(a.a[n], b.a[n], 0);
            expect_near(a.u0, b.u0, 0), expect_near(a.s0, b.s0, 0);
            for (int k = 0; k < parameters; ++k) expect_near(a.p[k], b.p[k], b.scale[k]);
            if (v_min_given == Shape::absent && form.reset != Reset::zero) {
              r.grad_u = r.grad_s = 0;
              const std::vector<double> c = by_kernels(r, method);
              const Gradients d = by_unrolling(r, method);
              for (std::size_t n = 0; n < c.size(); ++n) expect_near(c[n], d.a[n], 0);
            }
          }
        }
      }
    }
  }
}

/// A step of the real world: without a surrogate's discontinuities, for a smooth f, the witness's derivative is the limit of differences.
TEST(TheWitnesses, AreDerivatives) {
  // f(u) = sigmoid: then h is f' itself, and the loss can be moved for real.
  Random random(2);
  const auto f = [](double x) { return 1 / (1 + std::exp(-2 * x)); };
  for (const ResetForm& form : reset_forms) {
    if (form.reset == Reset::zero) continue;   // its gate is no smooth function of s
    Recording r;
    r.p = {0.9, 1.0, 1.1, 0.7, 0, false, form.reset, form.timing, 1};
    r.u0 = 0.3, r.s0 = 0.2, r.grad_u = 0.4, r.grad_s = -0.3;
    const std::size_t steps = 15;
    for (std::size_t n = 0; n < steps; ++n) {
      r.a.push_back(random.uniform(-1, 1)), r.e.push_back(random.uniform(-1, 1)), r.q.push_back(random.uniform(-1, 1));
    }
    r.u.resize(steps), r.s.resize(steps), r.h.resize(steps);
    const auto loss = [&](Recording& of) {
      double u = of.u0, s = of.s0, total = 0;
      for (std::size_t n = 0; n < steps; ++n) {
        of.u[n] = u = potential(of.p, u, s, of.a[n]);
        of.s[n] = s = f(u - of.p.threshold);
        of.h[n] = 2 * s * (1 - s);
        total += of.e[n] * s + of.q[n] * u;
      }
      return total + of.grad_u * u + of.grad_s * s;
    };
    loss(r);
    const Gradients g = by_tangents(r, Method::exodus);
    const auto difference = [&](const std::function<double&(Recording&)>& input) {
      Recording more = r, less = r;
      input(more) += 1e-5, input(less) -= 1e-5;
      return (loss(more) - loss(less)) / 2e-5;
    };
    for (std::size_t n = 0; n < steps; ++n) EXPECT_NEAR(g.a[n], difference([n](Recording& x) -> double& { return x.a[n]; }), 1e-8);
    EXPECT_NEAR(g.u0, difference([](Recording& x) -> double& { return x.u0; }), 1e-8);
    EXPECT_NEAR(g.s0, difference([](Recording& x) -> double& { return x.s0; }), 1e-8);
    EXPECT_NEAR(g.p[alpha], difference([](Recording& x) -> double& { return x.p.alpha; }), 1e-8);
    EXPECT_NEAR(g.p[threshold], difference([](Recording& x) -> double& { return x.p.threshold; }), 1e-8);
    EXPECT_NEAR(g.p[gain], difference([](Recording& x) -> double& { return x.p.gain; }), 1e-8);
    EXPECT_NEAR(g.p[reset_amount], difference([](Recording& x) -> double& { return x.p.reset_amount; }), 1e-8);
  }
}

/// Every method, reset, clamp, count of spikes and curve against the dense Jacobian.
TYPED_TEST(BackwardIsExact, AgainstTheDenseJacobian) {
  using V = TypeParam;
  Random random(3);
  for (const Layout& layout : {Layout{1, 25, 67}, Layout{3, 25, 5}, Layout{40, 18, 1}, Layout{2, 1, 70}, Layout{1, 250, 2}}) {
    int number = 0;
    for (const Method method : methods) {
      for (const ResetForm& form : reset_forms) {
        for (const Surrogate<V>& curve : curves<V>(form.reset)) {
          for (const Shape clamp : {Shape::absent, Shape::scalar}) {
            Shapes shapes = number % 3 == 0 ? Shapes{} : Shapes::any(random);
            shapes.v_min = clamp == Shape::absent ? clamp : Shape::per_inner;
            const std::int64_t max_spikes = number % 4 == 3 ? 0 : (number % 4 == 2 ? 2 : 1);
            Experiment<V> experiment(random, layout, population<V>(random, layout, form, max_spikes, shapes), curve, number % 2);
            experiment.with_values = number % 7 == 5;
            check(experiment, method, Wanted{}, 1 + number % 3, number % 5, by_tangents);
            ++number;
            if (this->HasFailure()) return;
          }
        }
      }
    }
  }
}

TYPED_TEST(BackwardIsExact, InEveryLayout) {
  using V = TypeParam;
  Random random(4);
  int number = 0;
  for (const Layout& layout : layouts(60000)) {
    for (int k = 0; k < 2; ++k, ++number) {
      const Shapes shapes = k == 0 ? Shapes{} : Shapes::any(random);
      const std::int64_t max_spikes = number % 5 == 4 ? 0 : 1;
      const ResetForm& form = reset_forms[number / 2 % 4];
      const std::vector<Surrogate<V>> all = curves<V>(form.reset);
      const Surrogate<V>& curve = all[k == 0 ? 0 : static_cast<std::size_t>(random.below(static_cast<std::int64_t>(all.size())))];
      Experiment<V> experiment(random, layout, population<V>(random, layout, form, max_spikes, shapes), curve, number % 3);
      const Wanted wanted = k == 0 ? Wanted{true, true, {}} : Wanted::any(random);
      check(experiment, methods[number / 8 % 3], wanted, 1 + number % 4, static_cast<int>(random.below(17)), by_unrolling);
      if (this->HasFailure()) return;
    }
  }
}

TYPED_TEST(BackwardIsExact, BeyondTheCaches) {
  using V = TypeParam;
  Random random(5);
  int number = 0;
  for (const Layout& layout : large_layouts()) {
    Experiment<V> experiment(random, layout, population<V>(random, layout, reset_forms[number % 3], 1, Shapes{}), {}, number % 2);
    Wanted wanted;
    for (bool& parameter : wanted.parameter) parameter = number % 2 == 1;
    check(experiment, methods[number % 3], wanted, 1 + number % 3, number % 2 == 0 ? 0 : 3, by_unrolling);
    ++number;
    if (this->HasFailure()) return;
  }
}

/// A reset amount that was not given is the threshold and a gain may be 1 - alpha: their gradients go there, for every pair of shapes.
TYPED_TEST(BackwardIsExact, TiedParametersPassTheirGradientsOn) {
  using V = TypeParam;
  Random random(6);
  for (const Layout& layout : {Layout{3, 20, 10}, Layout{1, 20, 130}, Layout{33, 20, 1}}) {
    for (int shape = 0; shape < static_cast<int>(Shape::count); ++shape) {
      for (const Method method : methods) {
        for (const ResetForm& form : reset_forms) {
          const Shapes shapes{static_cast<Shape>(shape), static_cast<Shape>(shape)};
          Population<V> p = population<V>(random, layout, form, 1, shapes);
          p.gain_follows_alpha = true;
          if (p.alpha.given()) {   // else alpha and gain are both 1
            p.gain = p.alpha;
            for (V& x : p.gain.list) x = V(1) - x;
          }
          const Experiment<V> experiment(random, layout, p, {});
          check(experiment, method, Wanted{}, 1, 0, by_tangents);
          for (int k = 0; k < 2; ++k) {   // each of the two by itself
            Wanted wanted{false, false, {}};
            wanted.parameter[k] = true;
            check(experiment, method, wanted, 1, 0, by_tangents);
          }
          if (this->HasFailure()) return;
        }
      }
    }
  }
}

/// Without a gradient of the spikes only the potential matters; without any, all is zero.
TYPED_TEST(BackwardIsExact, WithoutSomeGradients) {
  using V = TypeParam;
  Random random(7);
  for (const Layout& layout : {Layout{1, 20, 130}, Layout{6, 20, 7}}) {
    for (const Method method : methods) {
      for (int given = 0; given < 8; ++given) {
        Experiment<V> experiment(random, layout, population<V>(random, layout, reset_forms[given % 4], 1, Shapes{}), {});
        experiment.with_grad_spikes = (given & 1) != 0;
        experiment.with_grad_potential = (given & 2) != 0;
        experiment.with_grad_final = (given & 4) != 0;
        check(experiment, method, Wanted{}, 1, 0, by_tangents);
      }
    }
  }
}

/// One field of the initial state, or of the gradient of the final one, without the other.
TYPED_TEST(BackwardIsExact, WithHalfAState) {
  using V = TypeParam;
  Random random(8);
  const Layout layout{2, 12, 70};
  for (const Method method : methods) {
    for (const ResetForm& form : reset_forms) {
      for (int half = 0; half < 2; ++half) {
        Experiment<V> whole(random, layout, population<V>(random, layout, form, 1, Shapes{}), {});
        whole.with_state = whole.with_grad_final = true;
        for (std::int64_t j = 0; j < neurons(layout); ++j)
          (half == 0 ? whole.u0 : whole.s0)[j] = (half == 0 ? whole.grad_s : whole.grad_u)[j] = 0;
        whole.run();
        Results<V> expected(layout, whole.p, 0), got(layout, whole.p, 0);
        call(whole, method, Wanted{true, true, {}}, 1, expected);
        typename Lif<V>::Backward arrays = whole.inputs();
        (half == 0 ? arrays.initial.potential : arrays.initial.spikes) = nullptr;
        (half == 0 ? arrays.grad_final.spikes : arrays.grad_final.potential) = nullptr;
        arrays.grad_current = got.current.data();
        ASSERT_EQ(run_backward(layout, whole.p.neuron(), method, whole.curve(), arrays), Status::ok);
        EXPECT_TRUE(got.current.same_bits(expected.current));
        arrays.grad_current = nullptr;
        arrays.grad_initial.potential = got.u0.data();
        ASSERT_EQ(run_backward(layout, whole.p.neuron(), method, whole.curve(), arrays), Status::ok);
        EXPECT_TRUE(got.u0.same_bits(expected.u0) && got.s0.untouched());
        arrays.grad_initial = {nullptr, got.s0.data()};
        ASSERT_EQ(run_backward(layout, whole.p.neuron(), method, whole.curve(), arrays), Status::ok);
        EXPECT_TRUE(got.s0.same_bits(expected.s0));
      }
    }
  }
}

/// BPTT and EXODUS are the same gradient, computed in different ways.
TYPED_TEST(BackwardIsExact, ExodusIsBpttToRounding) {
  using V = TypeParam;
  Random random(9);
  const Layout layout{3, 250, 40};
  for (const ResetForm& form : reset_forms) {
    const Experiment<V> experiment(random, layout, population<V>(random, layout, form, 1, Shapes{}), {});
    Results<V> a(layout, experiment.p, 0), b(layout, experiment.p, 0);
    call(experiment, Method::exodus, Wanted{}, 1, a);
    call(experiment, Method::bptt, Wanted{}, 1, b);
    for (std::int64_t j = 0; j < neurons(layout); ++j) {
      double largest = 0;
      for (std::int64_t n = 0; n < layout.time; ++n) {
        largest = std::max(largest, std::fabs(static_cast<double>(b.current[at(layout, j, n)])));
      }
      for (std::int64_t n = 0; n < layout.time; ++n) {
        const std::int64_t k = at(layout, j, n);
        ASSERT_NEAR(static_cast<double>(a.current[k]), static_cast<double>(b.current[k]), tolerance<V> * largest);
      }
    }
  }
}

TYPED_TEST(BackwardIsExact, SameBitsForAnyNumberOfThreads) {
  using V = TypeParam;
  Random random(10);
  int number = 0;
  for (const Layout& layout :
       {Layout{1, 17, 3000}, Layout{5, 17, 1025}, Layout{33, 17, 129}, Layout{200, 17, 63}, Layout{3000, 17, 1}, Layout{1, 1, 100000}}) {
    for (const Method method : methods) {
      const Experiment<V> experiment(random, layout, population<V>(random, layout, reset_forms[number % 4], 1, Shapes::any(random)), {});
      ++number;
      Results<V> one(layout, experiment.p, 0);
      call(experiment, method, Wanted{}, 1, one);
      for (const int threads : {2, 3, 4}) {
        Results<V> several(layout, experiment.p, threads);
        call(experiment, method, Wanted{}, threads, several);
        ASSERT_TRUE(several.same_bits(one)) << describe(layout) << " " << threads << " threads";
      }
    }
  }
}

/// The same neurons as (1, T, N), (N, T, 1) and what lies between: the same bits, sums over the neurons included.
TYPED_TEST(BackwardIsExact, SameBitsForAnyPlaceInTheLayout) {
  using V = TypeParam;
  Random random(11);
  const std::int64_t count = 2310, time = 40;
  for (const Method method : methods) {
    for (const ResetForm& form : reset_forms) {
      const Layout wide{1, time, count};
      const Experiment<V> first(random, wide, population<V>(random, wide, form, 1, Shapes::any(random)), {});
      Results<V> expected(wide, first.p, 0);
      call(first, method, Wanted{}, 1, expected);
      for (const std::int64_t inner : {1, 3, 22, 77, 210, 1155}) {
        Experiment<V> other = first;
        other.layout = {count / inner, time, inner};
        const auto move = [&](const Input<V>& from, Input<V>& to) {
          for (std::int64_t j = 0; j < count; ++j) {
            for (std::int64_t n = 0; n < time; ++n) to[at(other.layout, j, n)] = from[at(wide, j, n)];
          }
        };
        move(first.current, other.current), move(first.potential, other.potential), move(first.grad_spikes, other.grad_spikes);
        move(first.grad_potential, other.grad_potential);
        Results<V> got(other.layout, other.p, 1);
        call(other, method, Wanted{}, 2, got);
        bool same = got.u0.same_bits(expected.u0) && got.s0.same_bits(expected.s0);
        for (int k = 0; k < parameters; ++k) same = same && got.list(k)->same_bits(*expected.list(k));
        for (std::int64_t j = 0; j < count && same; ++j) {
          for (std::int64_t n = 0; n < time; ++n) {
            const V a = got.current[at(other.layout, j, n)], b = expected.current[at(wide, j, n)];
            same = same && std::memcmp(&a, &b, sizeof a) == 0;
          }
        }
        ASSERT_TRUE(same) << describe(other.layout) << " method " << static_cast<int>(method) << " " << first.p.describe();
      }
    }
  }
}

/// The gradient of the initial state of one chunk is the gradient of the final state of the one before.
TYPED_TEST(BackwardIsExact, InChunksOfTime) {
  using V = TypeParam;
  Random random(12);
  for (const Layout& layout : {Layout{1, 40, 200}, Layout{5, 40, 6}, Layout{50, 40, 1}}) {
    for (const Method method : methods) {
      for (const ResetForm& form : reset_forms) {
        Shapes shapes;
        shapes.v_min = Shape::scalar;
        Experiment<V> whole(random, layout, population<V>(random, layout, form, 1, shapes), {});
        const std::int64_t lanes = neurons(layout);
        std::vector<V> next_u, next_s;
        for (std::int64_t end = layout.time; end > 0;) {
          const std::int64_t begin = std::max<std::int64_t>(0, end - 1 - random.below(15));
          Experiment<V> chunk = whole;
          chunk.layout.time = end - begin;
          for (const auto& [from, to] : {std::pair{&whole.current, &chunk.current},
                                         {&whole.potential, &chunk.potential},
                                         {&whole.grad_spikes, &chunk.grad_spikes},
                                         {&whole.grad_potential, &chunk.grad_potential}}) {
            for (std::int64_t j = 0; j < lanes; ++j) {
              for (std::int64_t n = begin; n < end; ++n) (*to)[at(chunk.layout, j, n - begin)] = (*from)[at(layout, j, n)];
            }
          }
          if (begin > 0) {
            chunk.with_state = true;
            for (std::int64_t j = 0; j < lanes; ++j) {
              chunk.u0[j] = whole.potential[at(layout, j, begin - 1)];
              chunk.s0[j] = whole.spikes_[static_cast<std::size_t>(at(layout, j, begin - 1))];
            }
          }
          if (end < layout.time) {
            chunk.with_grad_final = true;
            for (std::int64_t j = 0; j < lanes; ++j) {
              chunk.grad_u[j] = next_u[static_cast<std::size_t>(j)], chunk.grad_s[j] = next_s[static_cast<std::size_t>(j)];
            }
          }
          Results<V> results(chunk.layout, chunk.p, 0);
          call(chunk, method, Wanted{true, true, {}}, 1, results);
          for (std::int64_t j = 0; j < lanes; ++j) {
            const Gradients g = by_unrolling(whole.recording(j), method);
            for (std::int64_t n = begin; n < end; ++n) {
              ASSERT_NEAR(static_cast<double>(results.current[at(chunk.layout, j, n - begin)]), g.a[static_cast<std::size_t>(n)],
                          tolerance<V> * g.largest);
            }
          }
          next_u.assign(results.u0.data(), results.u0.data() + lanes);
          next_s.assign(results.s0.data(), results.s0.data() + lanes);
          end = begin;
        }
      }
    }
  }
}

/// NaN and infinity in the data reach no other neuron, and go backwards in time only.
TYPED_TEST(BackwardIsExact, NotANumberStaysInItsNeuron) {
  using V = TypeParam;
  Random random(13);
  const V bad[] = {std::numeric_limits<V>::quiet_NaN(), std::numeric_limits<V>::infinity(), -std::numeric_limits<V>::infinity()};
  for (const Layout& layout : {Layout{1, 12, 300}, Layout{300, 12, 1}, Layout{20, 12, 9}}) {
    for (const Method method : methods) {
      for (const ResetForm& form : reset_forms) {
        Experiment<V> clean(random, layout, population<V>(random, layout, form, 1, Shapes{}), {});
        clean.with_grad_potential = true;
        Experiment<V> dirty = clean;
        for (std::int64_t j = 3; j < neurons(layout); j += 7) {
          Input<V>* const arrays[] = {&dirty.grad_spikes, &dirty.grad_potential, &dirty.potential};
          (*arrays[j % 3])[at(layout, j, 5)] = bad[random.below(3)];
        }
        Results<V> a(layout, clean.p, 0), b(layout, clean.p, 0);
        call(clean, method, Wanted{true, true, {}}, 1, a);
        call(dirty, method, Wanted{true, true, {}}, 1, b);
        for (std::int64_t j = 0; j < neurons(layout); ++j) {
          for (std::int64_t n = j % 7 == 3 ? 6 : 0; n < layout.time; ++n) {
            ASSERT_EQ(a.current[at(layout, j, n)], b.current[at(layout, j, n)]) << j << " " << n;
          }
        }
      }
    }
  }
}

/// The leaky integrator: d[n] = q[n] + alpha d[n+1], the same by every method.
TYPED_TEST(BackwardIsExact, OfTheLeakyIntegrator) {
  using V = TypeParam;
  Random random(14);
  int number = 0;
  for (const Layout& layout : layouts(20000)) {
    ++number;
    const auto shape = [&] { return static_cast<Shape>(random.below(static_cast<std::int64_t>(Shape::count))); };
    const bool tied = number % 3 == 0;
    const Values<V> decay(random, shape(), layout, 0, 1);
    Values<V> factor(random, shape(), layout, 0.5, 1.5);
    if (tied) {
      factor = decay;
      for (V& x : factor.list) x = V(1) - x;
    }
    SCOPED_TRACE(describe(layout));
    ExpLeak<V> neuron;
    neuron.alpha = decay.param(), neuron.gain = factor.param(), neuron.gain_follows_alpha = tied;
    const std::int64_t count = elements(layout), lanes = neurons(layout);
    Input<V> current(count, 1), potential(count, 1), q(count, 1), initial(lanes, 1), grad_final(lanes, 1);
    for (Input<V>* array : {&current, &q, &initial, &grad_final}) array->fill(random, -1, 1);
    const bool with_state = random.coin(), with_final = random.coin();
    for (std::int64_t j = 0; j < lanes; ++j) {
      V u = with_state ? initial[j] : V(0);
      for (std::int64_t n = 0; n < layout.time; ++n) {
        potential[at(layout, j, n)] = u = (decay.at(j, V(1)) * u) + (factor.at(j, V(1)) * current[at(layout, j, n)]);
      }
    }
    Output<V> grad_current(count, number % 4), grad_initial(lanes);
    Output<double> grad_alpha(decay.count()), grad_gain(factor.count());
    typename ExpLeak<V>::Backward arrays;
    arrays.potential = potential.data(), arrays.current = current.data(), arrays.grad_potential = q.data();
    if (with_state) arrays.initial.potential = initial.data();
    if (with_final) arrays.grad_final.potential = grad_final.data();
    arrays.grad_current = grad_current.data(), arrays.grad_initial.potential = grad_initial.data();
    arrays.grad.alpha = grad_alpha.data();
    if (!tied) arrays.grad.gain = grad_gain.data();
    ASSERT_EQ(run_backward(layout, neuron, methods[number % 3], Surrogate<V>{}, arrays), Status::ok);

    std::vector<double> to_alpha(static_cast<std::size_t>(decay.count())), to_gain(static_cast<std::size_t>(factor.count()));
    std::vector<double> alpha_scale(to_alpha.size()), gain_scale(to_gain.size());
    for (std::int64_t j = 0; j < lanes; ++j) {
      const auto a = static_cast<double>(decay.at(j, V(1))), g = static_cast<double>(factor.at(j, V(1)));
      double later = with_final ? static_cast<double>(grad_final[j]) : 0, largest = 0;
      std::vector<double> expected(static_cast<std::size_t>(layout.time));
      const auto c = static_cast<std::size_t>(decay.index(j)), k = static_cast<std::size_t>(factor.index(j));
      for (std::int64_t n = layout.time; n-- > 0;) {
        const double d = static_cast<double>(q[at(layout, j, n)]) + later;
        const V before = n > 0 ? potential[at(layout, j, n - 1)] : (with_state ? initial[j] : V(0));
        const double alpha_term = d * static_cast<double>(before), gain_term = d * static_cast<double>(current[at(layout, j, n)]);
        to_alpha[c] += alpha_term - (tied ? gain_term : 0), alpha_scale[c] += std::fabs(alpha_term) + std::fabs(gain_term);
        to_gain[k] += gain_term, gain_scale[k] += std::fabs(gain_term);
        expected[static_cast<std::size_t>(n)] = g * d;
        largest = std::max(largest, std::fabs(d));
        later = a * d;
      }
      for (std::int64_t n = 0; n < layout.time; ++n) {
        ASSERT_NEAR(static_cast<double>(grad_current[at(layout, j, n)]), expected[static_cast<std::size_t>(n)], tolerance<V> * largest);
      }
      ASSERT_NEAR(static_cast<double>(grad_initial[j]), later, tolerance<V> * largest);
    }
    for (std::size_t c = 0; c < to_alpha.size(); ++c) {
      ASSERT_NEAR(grad_alpha[static_cast<std::int64_t>(c)], to_alpha[c], tolerance<V> * alpha_scale[c]);
    }
    for (std::size_t k = 0; k < to_gain.size() && !tied; ++k) {
      ASSERT_NEAR(grad_gain[static_cast<std::int64_t>(k)], to_gain[k], tolerance<V> * gain_scale[k]);
    }
    EXPECT_TRUE(grad_current.zones_intact() && grad_initial.zones_intact() && grad_alpha.zones_intact() && grad_gain.zones_intact());
    // Without parameters it needs no potential.
    arrays.potential = nullptr, arrays.grad = {};
    Output<V> again(count);
    arrays.grad_current = again.data();
    ASSERT_EQ(run_backward(layout, neuron, Method::exodus, Surrogate<V>{}, arrays), Status::ok);
    ASSERT_TRUE(again.same_bits(grad_current));
  }
}

/// One neuron of a recursive filter (kernel.hpp): its numbers, what goes in, and the loss of its output and of its last state.
struct Filter {
  FilterTiming kind;
  double a, b, scale;
  std::vector<double> in, q;
  double x = 0, y = 0;             // before step 0
  double grad_x = 0, grad_y = 0;   // of the state after the last step

  /// dL by moving a, b, scale, x, y or the input of a step, of that order the one given: the steps, followed forward.
  double tangent(int moved, std::size_t step = 0) const {
    double now_x = x, now_y = y, dx = moved == 3, dy = moved == 4, loss = 0;
    for (std::size_t n = 0; n < in.size(); ++n) {
      const double before = now_x, d_before = dx;
      dx = a * dx + (moved == 0 ? now_x : 0) + (moved == 5 && n == step), now_x = a * now_x + in[n];
      dy = b * dy + (moved == 1 ? now_y : 0) + (kind == FilterTiming::late ? d_before : dx);
      now_y = b * now_y + (kind == FilterTiming::late ? before : now_x);
      loss += q[n] * (scale * dy + (moved == 2 ? now_y : 0));
    }
    return loss + grad_x * dx + grad_y * dy;
  }

  /// The same without signs: what rounding is relative to.
  Filter size() const {
    Filter sizes = *this;
    for (std::vector<double>* const series : {&sizes.in, &sizes.q}) {
      for (double& value : *series) value = std::fabs(value);
    }
    for (double* const value : {&sizes.scale, &sizes.x, &sizes.y, &sizes.grad_x, &sizes.grad_y}) *value = std::fabs(*value);
    return sizes;
  }
};

/// A filter's own parameters, its state and its input.
TYPED_TEST(BackwardIsExact, OfTheFilter) {
  using V = TypeParam;
  Random random(16);
  int number = 0;
  for (const Layout& layout : layouts(20000)) {
    ++number;
    const auto shape = [&] { return static_cast<Shape>(random.below(static_cast<std::int64_t>(Shape::count))); };
    const Values<V> values[] = {
        {random, shape(), layout, 0, 0.95}, {random, shape(), layout, 0, 0.95}, {random, shape(), layout, -1.5, 1.5}};
    KernelFilter<V> filter;
    filter.kernel = static_cast<FilterTiming>(number % 2);
    filter.a = values[0].param(), filter.b = values[1].param(), filter.scale = values[2].param();
    const std::int64_t count = elements(layout), lanes = neurons(layout);
    Input<V> current(count), potential(count), q(count), initial[] = {Input<V>(lanes), Input<V>(lanes)},
                                                         grad_final[] = {Input<V>(lanes), Input<V>(lanes)};
    for (Input<V>* array : {&current, &q, &initial[0], &initial[1], &grad_final[0], &grad_final[1]}) array->fill(random, -1, 1);
    const bool with_state = random.coin(), with_final = random.coin();
    Output<V> of_current(count), of_x(lanes), of_y(lanes);
    Output<double> grads[] = {Output<double>(values[0].count()), Output<double>(values[1].count()), Output<double>(values[2].count())};
    typename KernelFilter<V>::Forward to{.current = current.data(), .potential = potential.data()};
    typename KernelFilter<V>::Backward back{.potential = potential.data(), .current = current.data(), .grad_potential = q.data()};
    if (with_state) to.initial = back.initial = {nullptr, initial[0].data(), initial[1].data()};
    if (with_final) back.grad_final = {nullptr, grad_final[0].data(), grad_final[1].data()};
    back.grad_current = of_current.data(), back.grad_initial = {nullptr, of_x.data(), of_y.data()};
    back.grad = {grads[0].data(), grads[1].data(), grads[2].data()};
    SCOPED_TRACE(describe(layout));
    ASSERT_EQ(run_forward(layout, filter, to), Status::ok);
    ASSERT_EQ(run_backward(layout, filter, methods[number % 3], Surrogate<V>{}, back), Status::ok);

    std::vector<double> sums[3], sizes[3];
    for (int k = 0; k < 3; ++k) {
      sums[k].resize(static_cast<std::size_t>(values[k].count())), sizes[k].resize(sums[k].size());
    }
    for (std::int64_t j = 0; j < lanes; ++j) {
      Filter one{filter.kernel, values[0].at(j, V(0)), values[1].at(j, V(0)), values[2].at(j, V(1)), {}, {}};
      for (std::int64_t n = 0; n < layout.time; ++n) one.in.push_back(current[at(layout, j, n)]), one.q.push_back(q[at(layout, j, n)]);
      if (with_state) one.x = initial[0][j], one.y = initial[1][j];
      if (with_final) one.grad_x = grad_final[0][j], one.grad_y = grad_final[1][j];
      const Filter size = one.size();
      for (int k = 0; k < 3; ++k) {
        const auto c = static_cast<std::size_t>(values[k].index(j));
        sums[k][c] += one.tangent(k), sizes[k][c] += size.tangent(k);
      }
      for (const std::int64_t n : {std::int64_t{0}, layout.time / 2, layout.time - 1}) {
        const auto step = static_cast<std::size_t>(n);
        ASSERT_NEAR(of_current[at(layout, j, n)], one.tangent(5, step), tolerance<V> * size.tangent(5, step))
            << "neuron " << j << " step " << n;
      }
      ASSERT_NEAR(of_x[j], one.tangent(3), tolerance<V> * size.tangent(3)) << "neuron " << j;
      ASSERT_NEAR(of_y[j], one.tangent(4), tolerance<V> * size.tangent(4)) << "neuron " << j;
    }
    for (int k = 0; k < 3; ++k) {
      for (std::size_t c = 0; c < sums[k].size(); ++c) {
        ASSERT_NEAR(grads[k][static_cast<std::int64_t>(c)], sums[k][c], tolerance<V> * sizes[k][c]) << "parameter " << k << " value " << c;
      }
      EXPECT_TRUE(grads[k].zones_intact());
    }
    EXPECT_TRUE(of_current.zones_intact() && of_x.zones_intact() && of_y.zones_intact());
  }
}

/// A gain that follows alpha passes its gradient on in the model with a synapse too. The witness: the same numbers as a gain of their own
/// for each neuron, whose gradients are summed here.
TYPED_TEST(BackwardIsExact, GainOfCubaLifThatFollowsAlpha) {
  using V = TypeParam;
  Random random(15);
  for (const Layout& layout : {Layout{3, 20, 10}, Layout{1, 20, 130}, Layout{33, 20, 1}}) {
    const std::int64_t count = elements(layout), lanes = neurons(layout);
    for (int shape = 0; shape < static_cast<int>(Shape::count); ++shape) {
      const Values<V> alpha(random, static_cast<Shape>(shape), layout, 0.3, 0.95);
      Values<V> gain = alpha;   // not given: both are 1
      for (V& x : gain.list) x = V(1) - x;
      std::vector<V> own(static_cast<std::size_t>(lanes));
      for (std::int64_t j = 0; j < lanes; ++j) own[static_cast<std::size_t>(j)] = gain.at(j, V(1));
      Input<V> current(count), potential(count), grad_spikes(count);
      current.fill(random, -1, 5), grad_spikes.fill(random, -1, 1);
      for (const Method method : methods) {
        CubaLif<V> tied;
        tied.alpha = alpha.param(), tied.alpha_syn = V(0.7), tied.gain = gain.param(), tied.gain_follows_alpha = true;
        CubaLif<V> apart = tied;
        apart.gain = Param<V>(own.data(), lanes), apart.gain_follows_alpha = false;
        ASSERT_EQ(run_forward(layout, tied, {.current = current.data(), .potential = potential.data()}), Status::ok);
        const auto gradients = [&](const CubaLif<V>& neuron, double* of_alpha, double* of_gain) {
          typename CubaLif<V>::Backward arrays{.potential = potential.data(), .current = current.data()};
          arrays.grad_spikes = grad_spikes.data();
          arrays.grad.alpha = of_alpha, arrays.grad.gain = of_gain;
          ASSERT_EQ(run_backward(layout, neuron, method, Surrogate<V>{}, arrays), Status::ok);
        };
        Output<double> got(alpha.count()), without(alpha.count()), of_gain(lanes);
        gradients(tied, got.data(), nullptr);
        gradients(apart, without.data(), of_gain.data());
        std::vector<double> through(static_cast<std::size_t>(alpha.count())), size(through.size());
        for (std::int64_t j = 0; j < lanes; ++j) {
          through[static_cast<std::size_t>(alpha.index(j))] += of_gain[j];
          size[static_cast<std::size_t>(alpha.index(j))] += std::fabs(of_gain[j]);
        }
        for (std::int64_t c = 0; c < alpha.count(); ++c) {
          const auto k = static_cast<std::size_t>(c);
          ASSERT_NEAR(got[c], without[c] - through[k], 1e-12 * (std::fabs(without[c]) + size[k])) << describe(layout) << " " << c;
        }
        EXPECT_TRUE(got.zones_intact());
        EXPECT_GT(*std::max_element(size.begin(), size.end()), 0);
      }
    }
  }
}

}   // namespace
}   // namespace exodus::test
