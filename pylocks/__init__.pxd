# <pylocks.h> for Cython: `cimport pylocks`, and the fast path is compiled into your module.
#
#     cimport pylocks
#
#     pylocks.plk_register_python_as(__name__)      # once, before any lock is used
#
#     cdef class Counter:
#         cdef object lock                          # keeps what handle points to alive
#         cdef pylocks.plk_lock *handle
#
#         def __cinit__(self, lock):
#             self.lock = lock
#             self.handle = pylocks.plk_lock_borrow(lock)
#
#         def add(self, long[::1] total, long n):
#             cdef int rc
#             with nogil:
#                 rc = pylocks.plk_acquire(self.handle)
#                 if rc >= 0:
#                     total[0] += n
#                     rc = pylocks.plk_unlock(self.handle)
#             if rc < 0:
#                 pylocks.plk_raise_python(rc, self.lock)
#
# What each function does, and what it returns, stands in pylocks.h. Compile with
# include_dirs=[pylocks.get_include()]. A module that cimports this has its PLK_MODULE already.

from libc.stdint cimport uint32_t, uint64_t

cdef extern from *:
    """
    #include <pylocks.h>
    #include <pylocks/python.h>
    PLK_MODULE("a module in Cython that has not been registered");
    """

cdef extern from "pylocks.h" nogil:
    cdef struct plk_lock:
        pass  # plk_lock_borrow has one, plk_lock_init makes one

    cdef struct plk_domain:
        pass

    const int PLK_OWNER_DIED
    const uint64_t PLK_FOREVER

    # 0 or PLK_OWNER_DIED: entered. Not with the GIL: the holder may need it.
    int plk_acquire(plk_lock *lock)
    int plk_acquire_until(plk_lock *lock, uint64_t deadline)
    uint64_t plk_in(uint64_t ns)
    int plk_trylock(plk_lock *lock)
    int plk_unlock(plk_lock *lock)
    int plk_mark_consistent(plk_lock *lock)
    int plk_lock_init(plk_lock *lock, plk_domain *domain, uint32_t index)

cdef extern from "pylocks/python.h":
    int plk_register_python_as(object name) except -1
    plk_lock *plk_lock_borrow(object lock) except NULL
    plk_domain *plk_array_borrow(object array) except NULL
    object plk_raise_python(int rc, object lock)
