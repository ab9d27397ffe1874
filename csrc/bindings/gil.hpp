// Releases the GIL while the core works, and takes the GIL again, also while the interpreter ends. Every binding uses
// this file: tests/test_interpreter_exit.py refuses pybind11's own guards.
//
// A daemon thread that asks for the GIL while the interpreter ends does not get it. CPython 3.11 to 3.13 end the thread
// by pthread_exit() inside the call. With glibc, pthread_exit() unwinds every C++ frame of the thread. Then the first
// destructor on the way that is noexcept calls std::terminate (destructors are noexcept unless declared otherwise), and
// destructors that run drop references without the GIL. CPython 3.14 stops the thread for ever inside the call. This
// file stops the thread for ever under every version, in the frame that made the call. No frame is unwound, and the
// process ends without the thread.
//
// This file does not ask before the call whether the interpreter is ending, for two reasons. The answer could change
// before the call is made. And the thread that ends the interpreter may make the call too (in a destructor or an atexit
// handler); that thread gets the GIL.
#pragma once

#include <pybind11/pybind11.h>
#include <unistd.h>

#include <exception>
#include <string>
#include <type_traits>

namespace fastfid::bindings {

// Stops the thread for ever where pthread_exit(), and not a C++ exception, unwinds the thread.
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
  int exceptions_ = std::uncaught_exceptions();  // a larger number later means that an exception is unwinding
  bool is_done_ = false;
};

// function(arguments...), where `function` is a function of CPython that may take the GIL: it asks for the GIL, or it
// may run Python code, whose bytecode gives the GIL to other threads and takes it again. Arguments are plain values, so
// no C++ object between Python and this function needs unwinding.
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

// Like call_python(), for functions that return a new reference, or null with an exception set. Throws
// py::error_already_set for null.
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

// Releases the GIL in the constructor and takes the GIL again in the destructor. The constructor must be called with
// the GIL held. Where the interpreter has ended for this thread, the destructor does not return. Also for
// py::call_guard.
class WithoutGil {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  ~WithoutGil() { call_python(PyEval_RestoreThread, state_); }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadState* state_;
};

// Takes the GIL in the constructor, whether or not the thread has the GIL already. The destructor restores the former
// state. Where the interpreter has ended for this thread, the constructor does not return.
class WithGil {
 public:
  WithGil() : state_(call_python(PyGILState_Ensure)) {}
  ~WithGil() { PyGILState_Release(state_); }
  WithGil(const WithGil&) = delete;
  WithGil& operator=(const WithGil&) = delete;

 private:
  PyGILState_STATE state_;
};

// Calls f() without the GIL and returns the result of f().
template <class F>
auto without_gil(F&& f) {
  const WithoutGil guard;
  return f();
}

}  // namespace fastfid::bindings
