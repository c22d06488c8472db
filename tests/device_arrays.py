"""A library of arrays "on a GPU" whose memory is the host's, for the kernels under the shim.

Its arrays cannot be used as NumPy arrays. Whatever the package does with arrays of an unknown library must go
through the array API's functions here, or it fails.
"""

import operator

import numpy as np

STREAM = 7
STREAM_OF_ANOTHER_DEVICE = 8


class Device:
    """A device like CuPy's: it has no hash, and new arrays are made on the current device."""

    __hash__ = None
    current = 0

    def __init__(self, number=0):
        self.number = number

    def __int__(self):
        return self.number

    def __eq__(self, other):
        return isinstance(other, Device)

    def __repr__(self):
        return "gpu:0"

    def use(self):
        raise AssertionError("use() would change the current device for good")

    def __enter__(self):
        Device.current += 1

    def __exit__(self, *error):
        Device.current -= 1


DEVICE = Device()


class DeviceArray:
    """An array that shares its memory by the CUDA array interface."""

    __slots__ = ("_host",)

    def __init__(self, host):
        self._host = np.asarray(host)

    shape = property(lambda self: self._host.shape)
    ndim = property(lambda self: self._host.ndim)
    dtype = property(lambda self: self._host.dtype)
    device = property(lambda self: DEVICE)

    def __array_namespace__(self, api_version=None):
        return LIBRARY

    @property
    def __cuda_array_interface__(self):
        interface = self._host.__array_interface__
        del interface["descr"]
        # CuPy names the stream of the current device.
        interface["stream"] = STREAM if Device.current > 0 else STREAM_OF_ANOTHER_DEVICE
        return interface

    def __array__(self, *args, **kwargs):
        raise TypeError("an array on a GPU is not converted to a NumPy array implicitly")

    def __getitem__(self, key):
        return DeviceArray(self._host[key])

    def __setitem__(self, key, value):
        self._host[key] = host(value)

    def reshape(self, shape):
        return DeviceArray(self._host.reshape(shape))


class DlpackArray(DeviceArray):
    """An array that shares its memory only by DLPack, and names no stream."""

    __slots__ = ()

    @property
    def __cuda_array_interface__(self):
        raise AttributeError

    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, stream=None):
        assert stream == 1
        return self._host.__dlpack__()


class StreamlessArray(DlpackArray):
    """An array like JAX's, which also has the interface: a version without streams, before it has values."""

    __slots__ = ()

    @property
    def __cuda_array_interface__(self):
        not_there_yet = np.full_like(self._host, np.nan)
        interface = DeviceArray(not_there_yet).__cuda_array_interface__
        return {k: v for k, v in interface.items() if k != "stream"} | {"version": 2}


def _swapped(function):
    return lambda a, b: function(b, a)


def _operation(function):
    def apply(self, *others):
        if any(isinstance(other, np.ndarray) for other in others):
            raise TypeError("an array on a GPU cannot be combined with a NumPy array")
        return DeviceArray(function(self._host, *map(host, others)))

    return apply


for _name in ("add", "sub", "mul", "truediv", "pow", "neg", "ge", "le", "gt", "lt"):
    setattr(DeviceArray, f"__{_name}__", _operation(getattr(operator, _name)))
for _name in ("add", "sub", "mul", "truediv"):
    setattr(DeviceArray, f"__r{_name}__", _operation(_swapped(getattr(operator, _name))))


def host(value):
    """The memory of an array, or of each array in a list, as a NumPy array."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(host, value))
    return value._host if isinstance(value, DeviceArray) else value


class _Library:
    """NumPy's functions, for these arrays."""

    __name__ = "tests.device"

    float16, float32, float64 = np.float16, np.float32, np.float64

    def empty(self, shape, *, dtype, device=None):
        assert device is None or Device.current > 0
        return DeviceArray(np.empty(shape, dtype))

    def __getattr__(self, name):
        function = getattr(np, name)
        if not callable(function) or isinstance(function, type):
            return function

        def call(*args, device=None, **kwargs):
            assert device is None or Device.current > 0
            kwargs.pop("api_version", None)
            return DeviceArray(function(*map(host, args), **kwargs))

        return call


LIBRARY = _Library()
