"""Signs over and over through a PKCS#11 module and prints the median in microseconds: MODULE COUNT ec|rsa [PIN]."""
import ctypes
import os
import statistics
import sys
import time

ULONG = ctypes.c_ulong
count, kind = int(sys.argv[2]), sys.argv[3]
pin = sys.argv[4].encode() if len(sys.argv) > 4 else None


def check(rv):
    if rv:
        raise SystemExit(f"0x{rv:x}")


class Module:
    """CK_FUNCTION_LIST: a version, then the functions in the standard's order. Some modules export nothing else."""

    NAMES = {"C_Initialize": 0, "C_GetSlotList": 4, "C_OpenSession": 12, "C_Login": 18, "C_GetAttributeValue": 24, "C_FindObjectsInit": 26,
             "C_FindObjects": 27, "C_FindObjectsFinal": 28, "C_SignInit": 42, "C_Sign": 43}

    def __init__(self, path):
        self.library, table = ctypes.CDLL(path), ctypes.POINTER(ctypes.c_void_p)()
        check(self.library.C_GetFunctionList(ctypes.byref(table)))
        for name, i in self.NAMES.items():
            setattr(self, name, ctypes.CFUNCTYPE(ULONG)(table[1 + i]))


class Attribute(ctypes.Structure):
    _fields_ = [("type", ULONG), ("value", ctypes.c_void_p), ("len", ULONG)]


class Mechanism(ctypes.Structure):
    _fields_ = [("mechanism", ULONG), ("parameter", ctypes.c_void_p), ("len", ULONG)]


def attribute(kind_of, value):
    return Attribute(kind_of, ctypes.cast(ctypes.byref(value), ctypes.c_void_p), ctypes.sizeof(value))


def find(slot):
    session, found, handles = ULONG(), ULONG(), (ULONG * 8)()
    if module.C_OpenSession(ULONG(slot), ULONG(4), None, None, ctypes.byref(session)):
        return None
    module.C_Login(session, ULONG(1), pin, ULONG(len(pin) if pin else 0))
    private, key_type = ULONG(3), ULONG(3 if kind == "ec" else 0)
    template = (Attribute * 2)(attribute(0, private), attribute(0x100, key_type))
    check(module.C_FindObjectsInit(session, template, ULONG(2)))
    check(module.C_FindObjects(session, handles, ULONG(8), ctypes.byref(found)))
    check(module.C_FindObjectsFinal(session))
    for handle in handles[:found.value]:
        signs = ctypes.c_ubyte()
        if module.C_GetAttributeValue(session, ULONG(handle), ctypes.byref(attribute(0x108, signs)), ULONG(1)) == 0 and signs.value:
            return session, ULONG(handle)
    return None


module = Module(sys.argv[1])
check(module.C_Initialize(None))
n, slots = ULONG(16), (ULONG * 16)()
check(module.C_GetSlotList(1, slots, ctypes.byref(n)))
found = next(filter(None, map(find, slots[:n.value])), None)
if not found:  # SoftHSM, while others log in
    os.execv(sys.executable, [sys.executable, *sys.argv])
session, key = found
mechanism, digest, signature, length, times = Mechanism(0x1041 if kind == "ec" else 1, None, 0), b"x" * 32, (ctypes.c_ubyte * 512)(), ULONG(), []
began = time.monotonic()
for _ in range(count):
    start = time.perf_counter()
    check(module.C_SignInit(session, ctypes.byref(mechanism), key))
    length.value = 512
    check(module.C_Sign(session, digest, ULONG(32), signature, ctypes.byref(length)))
    times.append(time.perf_counter() - start)
print(statistics.median(times) * 1e6, began, time.monotonic())
