// The GIL: given back while the core works, and taken again, also while the interpreter ends. Every binding goes
// through this file; tests/test_interpreter_exit.py refuses pybind11's own guards.
//
// A daemon thread that asks for the GIL while the interpreter ends does not get it. CPython 3.11 to 3.13 end the thread
// by pthread_exit() inside the call, which glibc makes unwind every C++ frame of the thread: the first destructor on
// the way that is noexcept, as all are that nobody declared otherwise, calls std::terminate, and those that run drop
// references without the GIL. CPython 3.14 stops the thread for ever inside the call. Here it is stopped for ever under
// every version, in the frame that made the call, so that nothing is unwound; the process ends without it.
//
// No question whether the interpreter is ending precedes the call: the answer could change before the call is made, and
// the thread that ends the interpreter, which may well come through here (a destructor, an atexit handler), gets the
// GIL.
#pragma once

#include <pybind11/pybind11.h>
#include <unistd.h>

#include <exception>
#include <string>
#include <type_traits>

namespace fastfid::bindings {

// Stops the thread for ever where something unwinds it that is no C++ exception: pthread_exit().
class StopsAtThreadExit {
 public:
  StopsAtThreadExit() = default;
  ~StopsAtThreadExit() {
    if (is_done_ || std::uncaught_exceptions() != exceptions_) return;
    for (;;) pause();
  }
  StopsAtThreadExit(const StopsAtThreadExit&) = delete;
  StopsAtThreadExit& operator=(const StopsAtThreadExit&) = delete;

  void done() { is_done_ = true; }

 private:
  int exceptions_ = std::uncaught_exceptions();  // more of them: an exception is on its way
  bool is_done_ = false;
};

// function(arguments...), one of CPython's that may take the GIL: one that asks for it, or that may run code written in
// Python, whose bytecode gives the GIL to other threads and takes it again. Arguments are plain values: nothing is
// unwound between Python and here.
template <class Result, class... Parameters, class... Arguments>
Result call_python(Result (*function)(Parameters...), Arguments... arguments) {
  StopsAtThreadExit guard;
  if constexpr (std::is_void_v<Result>) {
    function(arguments...);
    guard.done();
  } else {
    const Result result = function(arguments...);
    guard.done();
    return result;
  }
}

// The same for functions that return a new reference, or null and an exception: throws py::error_already_set.
template <class... Parameters, class... Arguments>
pybind11::object object_from_python(PyObject* (*function)(Parameters...), Arguments... arguments) {
  PyObject* const result = call_python(function, arguments...);
  if (result == nullptr) throw pybind11::error_already_set();
  return pybind11::reinterpret_steal<pybind11::object>(result);
}

inline pybind11::object attribute(pybind11::handle object, const char* name) {
  return object_from_python(PyObject_GetAttrString, object.ptr(), name);
}

inline bool has_attribute(pybind11::handle object, const char* name) {
  return call_python(PyObject_HasAttrString, object.ptr(), name) == 1;
}

// isinstance(object, type)
inline bool is_instance(pybind11::handle object, pybind11::handle type) {
  const int found = call_python(PyObject_IsInstance, object.ptr(), type.ptr());
  if (found < 0) throw pybind11::error_already_set();
  return found == 1;
}

// callable(*arguments, **keywords)
inline pybind11::object call(pybind11::handle callable, const pybind11::tuple& arguments = pybind11::tuple(),
                             const pybind11::dict& keywords = pybind11::dict()) {
  return object_from_python(PyObject_Call, callable.ptr(), arguments.ptr(), keywords.ptr());
}

// str(object)
inline std::string text(pybind11::handle object) {
  return pybind11::cast<std::string>(object_from_python(PyObject_Str, object.ptr()));
}

// The name of the object's class.
inline std::string type_name(pybind11::handle object) {
  return text(attribute(pybind11::type::handle_of(object), "__name__"));
}

// While it lives, the thread does without the GIL. It is made with the GIL held. Its end takes the GIL again or, where
// the interpreter has ended for this thread, does not return. Also for py::call_guard.
class WithoutGil {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  ~WithoutGil() { call_python(PyEval_RestoreThread, state_); }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadState* state_;
};

// While it lives, the thread has the GIL, whether or not it had it before. Otherwise like WithoutGil.
class WithGil {
 public:
  WithGil() : state_(call_python(PyGILState_Ensure)) {}
  ~WithGil() { PyGILState_Release(state_); }
  WithGil(const WithGil&) = delete;
  WithGil& operator=(const WithGil&) = delete;

 private:
  PyGILState_STATE state_;
};

// Calls f() without the GIL and returns what it does.
template <class F>
auto without_gil(F&& f) {
  const WithoutGil guard;
  return f();
}

}  // namespace fastfid::bindings
