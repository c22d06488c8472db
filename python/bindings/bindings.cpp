/// @file
/// The extension with the kernels of the CPU.
#include <sys/mman.h>
#include <unistd.h>

#include <optional>
#include <vector>

#include "bound.hpp"
#include "calls.hpp"
#include "products.hpp"

namespace {

namespace py = pybind11;
using namespace exodus::python;

/// On some threads of the pool; 0 is all of them.
class OnCpu {
 public:
  static constexpr bool binds_halves = false;   // nobody asks for them

  explicit OnCpu(const py::object& threads) : threads_(threads.cast<int>()) {}

  OwnWorkspace memory(exodus::Workspace needed) const { return OwnWorkspace(needed); }

  template <class... Arguments>
  exodus::Workspace workspace(const Arguments&... arguments) const {
    return exodus::workspace(arguments..., threads_);
  }
  template <class... Arguments>
  exodus::Status forward(const Arguments&... arguments) const {
    return exodus::forward(arguments...);
  }
  template <class... Arguments>
  exodus::Status backward(const Arguments&... arguments) const {
    return exodus::backward(arguments...);
  }
  template <class... Arguments>
  exodus::Status delay(const Arguments&... arguments) const {
    return exodus::delay(arguments...);
  }
  template <class... Arguments>
  exodus::Status delay_adjoint(const Arguments&... arguments) const {
    return exodus::delay_adjoint(arguments...);
  }
  void check(exodus::Status status) const { exodus::python::check(status); }

 private:
  int threads_;
};

void evaluate(const std::string& type_name, const py::object& surrogate, const py::handle& threshold, const py::array& potential,
              py::array& h) {
  const exodus::FloatingPointMode mode;
  const auto run = [&]<class S>(S) {
    const std::int64_t count = potential.size();
    const exodus::Surrogate<S> native_surrogate = to_surrogate<S>(surrogate, count);
    const auto param = to_param<S>(threshold);
    const S* const u = pointer<const S>(potential, count);
    S* const values = pointer<S>(h, count);
    check(without_lock([&] { return exodus::evaluate(native_surrogate, param, count, u, values); }));
  };
  type_name == "float64" ? run(double{}) : run(float{});
}

/// The library's floating-point mode, for arithmetic of the package's own, until end().
class DefaultMode {
 public:
  void end() { mode_.reset(); }

 private:
  std::optional<exodus::FloatingPointMode> mode_{std::in_place};
};

void decay(const py::object& dt, const py::object& tau, py::array& decays) {
  const std::int64_t count = decays.size();
  check(exodus::decay(to_param<double>(dt), to_param<double>(tau), count, pointer<double>(decays, count)));
}

double decay_of(double dt, double tau) {
  double result;
  check(exodus::decay(exodus::Param<double>(dt), exodus::Param<double>(tau), 1, &result));
  return result;
}

void rotation(const py::object& angle, py::array& cosines, py::array& sines) {
  const std::int64_t count = cosines.size();
  check(exodus::rotation(to_param<double>(angle), count, pointer<double>(cosines, count), pointer<double>(sines, count)));
}

template <class N>
std::vector<std::string> taps_names() {
  if constexpr (has_taps<N>) return {std::begin(N::taps_names), std::end(N::taps_names)};
  return {};
}

template <class N>
std::vector<std::string> parameter_names() {
  std::vector<std::string> names;
  for (const exodus::ParameterFacts& facts : N::parameter_table) names.emplace_back(facts.name);
  return names;
}

template <class Enum>
const char* name_of(Enum value) {
  return exodus::enumerators<Enum>[static_cast<int>(value)];
}

/// By name: the domain, the role, the value where it is not given (None if that is no number of its own), whether its gradient needs the
/// current. Taps come after the parameters; those of the kernel of the current read it.
template <class N>
py::dict parameter_facts() {
  py::dict result;
  for (const exodus::ParameterFacts& facts : N::parameter_table) {
    const bool own_value = facts.same_as == nullptr && facts.default_value == facts.default_value;
    const py::object default_value = own_value ? py::object(py::float_(facts.default_value)) : py::object(py::none());
    result[facts.name] = py::make_tuple(name_of(facts.domain), name_of(facts.role), default_value, facts.reads_current);
  }
  bool of_current = true;
  for (const std::string& name : taps_names<N>()) {
    result[name.c_str()] = py::make_tuple(name_of(exodus::Domain::free), name_of(exodus::Role::none), py::none(), of_current);
    of_current = false;
  }
  return result;
}

/// Calls add(name, model's struct) for each model.
template <class Add>
void for_each_model(Add add) {
#define EXODUS_MODEL(name) add(#name, exodus::name<float>{});
  EXODUS_MODELS(EXODUS_MODEL)
#undef EXODUS_MODEL
}

/// The names of a model's parameters, states and kernels with taps, in the order in which addresses are passed.
py::dict models() {
  py::dict result;
  for_each_model([&]<class N>(const char* name, const N&) {
    result[name] = py::make_tuple(parameter_names<N>(), std::vector<std::string>(std::begin(N::state_names), std::end(N::state_names)),
                                  taps_names<N>());
  });
  return result;
}

/// The names of an enum's enumerators, in their order.
template <class Enum>
py::tuple names_of() {
  return py::tuple(py::cast(std::vector<std::string>(std::begin(exodus::enumerators<Enum>), std::end(exodus::enumerators<Enum>))));
}

/// The enums that calls take by the names of their enumerators.
py::dict enumerators() {
  py::dict result;
  result["Method"] = names_of<exodus::Method>();
  result["Reset"] = names_of<exodus::Reset>();
  result["ResetTiming"] = names_of<exodus::ResetTiming>();
  result["FilterTiming"] = names_of<exodus::FilterTiming>();
  return result;
}

/// The table of each model's parameters.
py::dict parameters() {
  py::dict result;
  for_each_model([&]<class N>(const char* name, const N&) { result[name] = parameter_facts<N>(); });
  return result;
}

template <class T>
void add_learnt_numbers(py::module_& module, const char* name) {
  py::class_<LearntNumbers<T>>(module, name)
      .def(py::init<const Ranges&>())
      .def("read", &LearntNumbers<T>::read)
      .def("gradients", &LearntNumbers<T>::gradients);
}

/// Asks the system for huge pages for memory that nobody has touched. Otherwise the first write to every 4 KB is a fault, and the faults of
/// a new array take longer than a pass over it (benchmarks/fresh.py). It is advice only: where the system has none to give, nothing
/// changes.
void use_huge_pages(std::uintptr_t address, std::size_t bytes) {
#if defined(MADV_HUGEPAGE)
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE)), begin = (address + page - 1) / page * page;
  const std::uintptr_t end = (address + bytes) / page * page;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

/// Functions of the OpenMP runtime whose threads the calls use.
struct OpenMp {
  void (*parallel)(void (*part)(void*), void* context, unsigned threads, unsigned flags);   // GOMP_parallel
  int (*max_threads)();                                                                     // omp_get_max_threads
};
OpenMp openmp;

/// At least as many threads as the runtime's own loops have. With fewer, the others would end, and start again at the next of these loops.
void openmp_team(int threads, void (*part)(void* context), void* context) {
  openmp.parallel(part, context, static_cast<unsigned>(std::max(threads, openmp.max_threads())), 0);
}

/// Takes the addresses of the two functions, because the library is not linked to a runtime.
void use_openmp(std::uintptr_t parallel, std::uintptr_t max_threads) {
  openmp = {reinterpret_cast<decltype(OpenMp::parallel)>(parallel), reinterpret_cast<decltype(OpenMp::max_threads)>(max_threads)};
  exodus::set_team(openmp_team);
}

/// Functions that take Python's arguments as they are, without pybind11.
PyMethodDef plain_functions[] = {
    {"estimate_share_of_array", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(estimate_share_of_array)), METH_FASTCALL,
     nullptr},
    {}};

}   // namespace

// pybind11's entry point gets another name, since ours has to come before it.
#define PyInit__core PyInit_unguarded_core
PYBIND11_MODULE(_core, m) {
  m.doc() = "Kernels of exodus_core; use the package's functions, which check their arguments.";
  m.def("forward", &exodus::python::forward<OnCpu>);
  m.def("backward", &exodus::python::backward<OnCpu>);
  exodus::python::add_bound_neuron<OnCpu>(m);
  add_learnt_numbers<float>(m, "LearntFloats");
  add_learnt_numbers<double>(m, "LearntDoubles");
  m.def("delay", &exodus::python::delay<OnCpu>);
  m.def("delay_adjoint", &exodus::python::delay_adjoint<OnCpu>);
  m.def("pack", &exodus::python::pack);
  m.def("estimate_share", &exodus::python::estimate_share);
  if (PyModule_AddFunctions(m.ptr(), plain_functions) != 0) throw py::error_already_set();
  m.def("pack_values", &exodus::python::pack_values);
  m.def("product", &exodus::python::product);
  m.def("product_gradients", &exodus::python::product_gradients);
  m.def("product_input_gradient", &exodus::python::product_input_gradient);
  m.def("convolution", &exodus::python::convolution);
  m.def("convolution_gradients", &exodus::python::convolution_gradients);
  m.def("average_pool", &exodus::python::average_pool);
  m.def("average_pool_gradient", &exodus::python::average_pool_gradient);
  m.def("evaluate", &evaluate);
  m.def("decay", &decay);
  m.def("decay_of", &decay_of);
  m.def("rotation", &rotation);
  py::class_<DefaultMode>(m, "DefaultMode").def(py::init<>()).def("end", &DefaultMode::end);
  m.def("get_num_threads", &exodus::get_num_threads);
  m.def("set_num_threads", &exodus::set_num_threads);
  m.def("use_openmp", &use_openmp);
  m.def("use_huge_pages", &use_huge_pages);
  m.def("isa", &exodus::isa);
  m.attr("models") = models();
  m.attr("parameters") = parameters();
  m.attr("enumerators") = enumerators();
  m.attr("version") = exodus::version();
  m.attr("surrogates") = std::vector<std::string>{
#define EXODUS_KIND(name, expression) #name,
      EXODUS_SURROGATES(EXODUS_KIND)
#undef EXODUS_KIND
  };
}

#undef PyInit__core

extern "C" PYBIND11_EXPORT PyObject* PyInit__core() {
  return exodus::python::is_main_interpreter("exodus_core") ? PyInit_unguarded_core() : nullptr;
}
