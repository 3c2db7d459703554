# cython: language_level=3
"""Mean and variance of samples that many threads and processes add, in shared memory under one lock."""

from libc.errno cimport EINVAL
from libc.math cimport NAN
from libc.stdint cimport uint32_t

cimport pylocks

pylocks.plk_register_python_as(__name__)  # ImportError, if the pylocks here has another ABI


# [1]
cdef class Moments:
    """Moments(lock, array): `array` is three doubles: how many, their mean, their squared deviations."""

    cdef object lock  # what handle points to lives as long as it does
    cdef pylocks.plk_lock *handle
    cdef double[::1] state

    def __cinit__(self, lock, double[::1] state):
        if state.shape[0] != 3:
            raise ValueError("the array has three numbers")
        self.lock = lock
        self.handle = pylocks.plk_lock_borrow(lock)
        self.state = state

    def add(self, const double[::1] samples):
        """Add samples, one at a time, each under the lock; without the GIL."""
        cdef Py_ssize_t i
        cdef int rc = 0
        with nogil:
            for i in range(samples.shape[0]):
                rc = self.add_one(samples[i])
                if rc < 0:
                    break
        if rc < 0:
            pylocks.plk_raise_python(rc, self.lock)  # what lock.acquire() would raise

    # [2]
    cdef int add_one(self, double x) noexcept nogil:
        cdef double delta
        cdef int rc = pylocks.plk_acquire(self.handle)
        if rc < 0:
            return rc
        if rc == pylocks.PLK_OWNER_DIED:  # entered, amid somebody else's update: begin anew
            self.state[:] = 0
            pylocks.plk_mark_consistent(self.handle)
        delta = x - self.state[1]
        self.state[0] += 1
        self.state[1] += delta / self.state[0]
        self.state[2] += delta * (x - self.state[1])
        return pylocks.plk_unlock(self.handle)

    @property
    def variance(self):
        """Of the samples added so far."""
        with self.lock:  # the same lock, in Python
            return self.state[2] / self.state[0] if self.state[0] else NAN


# [3]
cdef class Histogram:
    """Histogram(locks, counts): counts[i] is protected by locks[i], of a LockArray of the same length."""

    cdef object locks
    cdef pylocks.plk_domain *domain
    cdef long[::1] counts

    def __cinit__(self, locks, long[::1] counts):
        if len(locks) != counts.shape[0]:
            raise ValueError("as many counts as locks")
        self.locks = locks
        self.domain = pylocks.plk_array_borrow(locks)
        self.counts = counts

    def add(self, const long[::1] bins):
        """Count each of the bins; IndexError at the first that does not exist."""
        cdef Py_ssize_t i
        cdef int rc = 0
        with nogil:
            for i in range(bins.shape[0]):
                rc = self.add_one(bins[i])
                if rc < 0:
                    break
        if rc == -EINVAL:
            raise IndexError(f"there is no bin {bins[i]}")
        if rc < 0:
            raise OSError(-rc, f"bin {bins[i]} was not counted")

    cdef int add_one(self, long bin) noexcept nogil:
        cdef pylocks.plk_lock lock  # a handle is made in no time: no need to keep one for each lock
        cdef int rc
        if not 0 <= bin < self.counts.shape[0]:  # before the lock: what raises below would keep it
            return -EINVAL
        rc = pylocks.plk_lock_init(&lock, self.domain, <uint32_t>bin)
        if rc == 0:
            rc = pylocks.plk_acquire(&lock)
        if rc >= 0:
            self.counts[bin] += 1
            rc = pylocks.plk_unlock(&lock)
        return rc
