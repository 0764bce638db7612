// What CUDA C++ has and C++ has not, for kernels that are run on a CPU: a block's threads are fibers, of which one runs at a
// time until it meets a barrier or an instruction of its whole warp.
//
// Blocks run one after another. Shared memory is filled with bytes 0xff (no number) before each block, and what follows it is
// checked after. It is an error if lanes of a warp meet at different places, if threads meet at different barriers or not
// all of them at one, or if a matrix is loaded from outside shared memory. `order` turns the threads' order around, so that a
// missing barrier shows in one of the two.

#pragma once
#include <csetjmp>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __launch_bounds__(...)
#define DEVICE static inline
#define SHARED(name) unsigned char *name = emulation::self().block->shared

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct Index {
    unsigned x, y;
};

namespace emulation {

constexpr size_t STACK = 256 << 10, GUARD_BYTES = 64;
constexpr unsigned char UNSET = 0xff, GUARD_BYTE = 0xa5;

struct Block;

struct Fiber {
    Block *block;
    Index thread;
    unsigned lane, warp;
    bool started, done;
    // What it waits for: that a count is no longer this one. `at` says where, for messages.
    const unsigned *count;
    unsigned seen;
    const char *what;
    int line;
    jmp_buf jump;
    ucontext_t context;
    std::unique_ptr<unsigned char[]> stack;
};

struct Warp {
    unsigned arrived, turn;
    const char *what;
    int line;
    void *lanes[32];
};

struct Block {
    Index index, size, grid;
    unsigned char *shared;
    size_t shared_bytes;
    unsigned arrived, turn;
    int line;
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    jmp_buf home;
    void (*body)(void *);
    void *arguments;
    std::string error;
};

static thread_local Fiber *current;

static inline Fiber &self() { return *current; }

// Back to the scheduler; returns when this fiber goes on.
static __attribute__((noinline)) void yield() {
    Fiber *me = current;
    if (_setjmp(me->jump) == 0) _longjmp(me->block->home, 1);
}

[[noreturn]] static __attribute__((noinline)) void fail(const std::string &error) {
    Block &b = *current->block;
    if (b.error.empty())
        b.error = "block " + std::to_string(b.index.x) + ", " + std::to_string(b.index.y) + ", thread " +
                  std::to_string(current->thread.x) + ": " + error;
    _longjmp(b.home, 2);
}

static void wait(const unsigned &count, const char *what, int line) {
    Fiber &me = self();
    me.what = what;
    me.line = line;
    me.seen = count;
    me.count = &count;
    while (count == me.seen) yield();
    self().count = nullptr;
}

// All lanes of a warp at one instruction: `work` sees their arguments once all are there.
template <class T, class F> static void together(T &mine, const char *what, int line, F work) {
    Fiber &me = self();
    Warp &w = me.block->warps[me.warp];
    if (w.arrived == 0) {
        w.what = what;
        w.line = line;
    } else if (w.line != line || std::strcmp(w.what, what) != 0) {
        fail(std::string("a lane is at ") + what + " of line " + std::to_string(line) + ", another one at " + w.what +
             " of line " + std::to_string(w.line));
    }
    w.lanes[me.lane] = &mine;
    if (++w.arrived < 32) {
        wait(w.turn, what, line);
        return;
    }
    T *lanes[32];
    for (int i = 0; i < 32; i++) lanes[i] = static_cast<T *>(w.lanes[i]);
    work(lanes);
    w.arrived = 0;
    w.turn++;
}

static void barrier(int line) {
    Block &b = *self().block;
    if (b.arrived == 0) b.line = line;
    else if (b.line != line)
        fail("a barrier of line " + std::to_string(line) + " meets one of line " + std::to_string(b.line));
    if (++b.arrived < b.fibers.size()) {
        wait(b.turn, "a barrier", line);
        return;
    }
    b.arrived = 0;
    b.turn++;
}

static void enter() {
    for (;;) {
        Fiber *me = current;
        me->block->body(me->block->arguments);
        me = current;
        me->done = true;
        yield();
    }
}

static __attribute__((noinline)) int resume(Block &b, Fiber &f) {
    current = &f;
    int why = _setjmp(b.home);
    if (why == 0) {
        if (current->started) _longjmp(current->jump, 1);
        current->started = true;
        setcontext(&current->context);
    }
    return why;
}

// Runs the threads of a block to their ends.
static void run(Block &b, bool backwards) {
    size_t left = b.fibers.size(), warps = b.warps.size();
    b.arrived = 0;
    for (auto &w : b.warps) w.arrived = 0;
    for (auto &f : b.fibers) {
        f.done = false;
        f.count = nullptr;
    }
    std::memset(b.shared, UNSET, b.shared_bytes);
    std::memset(b.shared + b.shared_bytes, GUARD_BYTE, GUARD_BYTES);
    while (left > 0) {
        bool moved = false;
        for (size_t i = 0; i < warps; i++) {
            size_t warp = backwards ? warps - 1 - i : i;
            for (bool more = true; more;) {
                more = false;
                for (unsigned j = 0; j < 32; j++) {
                    Fiber &f = b.fibers[warp * 32 + (backwards ? 31 - j : j)];
                    if (f.done || (f.count && *f.count == f.seen)) continue;
                    more = moved = true;
                    if (resume(b, f) == 2) return;
                    if (f.done) left--;
                }
            }
        }
        if (!moved) {
            for (auto &f : b.fibers)
                if (!f.done) {
                    current = &f;
                    b.error = std::to_string(left) + " of " + std::to_string(b.fibers.size()) +
                              " threads wait for others that do not come, thread " + std::to_string(f.thread.x) +
                              " at " + f.what + " of line " + std::to_string(f.line);
                    return;
                }
        }
    }
    for (size_t i = 0; i < GUARD_BYTES; i++)
        if (b.shared[b.shared_bytes + i] != GUARD_BYTE) b.error = "wrote beyond its shared memory";
}

template <class... A> struct Call {
    void (*kernel)(A...);
    void **arguments;
    template <size_t... I> void operator()(std::index_sequence<I...>) const {
        kernel(*static_cast<std::remove_cv_t<A> *>(arguments[I])...);
    }
    static void body(void *call) { (*static_cast<const Call *>(call))(std::index_sequence_for<A...>{}); }
};

// Runs a kernel; what went wrong, or null.
template <class... A>
static const char *launch(void (*kernel)(A...), const unsigned *grid, unsigned threads, unsigned shared, void **arguments,
                          unsigned count, unsigned order) {
    static thread_local std::string error;
    if (count != sizeof...(A)) return "the kernel has another number of arguments";
    if (threads % 32 != 0 || threads == 0) return "the threads of a block are no whole warps";
    Call<A...> call{kernel, arguments};
    Block b{};
    b.size = {threads, 1};
    b.grid = {grid[0], grid[1]};
    b.shared_bytes = shared;
    std::unique_ptr<unsigned char[]> memory(new unsigned char[shared + GUARD_BYTES + 16]);
    b.shared = memory.get() + (16 - reinterpret_cast<uintptr_t>(memory.get()) % 16) % 16;
    b.body = Call<A...>::body;
    b.arguments = &call;
    b.fibers = std::vector<Fiber>(threads);
    b.warps.resize(threads / 32);
    for (unsigned i = 0; i < threads; i++) {
        Fiber &f = b.fibers[i];
        f.block = &b;
        f.thread = {i, 0};
        f.lane = i % 32;
        f.warp = i / 32;
        f.started = false;
        f.stack.reset(new unsigned char[STACK]);
        getcontext(&f.context);
        f.context.uc_stack.ss_sp = f.stack.get();
        f.context.uc_stack.ss_size = STACK;
        f.context.uc_link = nullptr;
        makecontext(&f.context, enter, 0);
    }
    for (b.index.y = 0; b.index.y < grid[1]; b.index.y++)
        for (b.index.x = 0; b.index.x < grid[0]; b.index.x++) {
            run(b, order % 2 == 1);
            if (!b.error.empty()) {
                error = b.error;
                return error.c_str();
            }
        }
    return nullptr;
}

struct Mma {
    float *c;
    const unsigned *a;
    unsigned b0, b1;
};
struct Matrix {
    const uint16_t *row;
    uint4 out;
};
struct Number {
    float in, out;
    int mask;
};
struct Vote {
    bool in;
    int out;
};

static inline float number(unsigned bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

static inline float half(unsigned word, int i) { return number(i ? word & 0xffff0000u : word << 16); }

// By the tables of the PTX manual for mma.m16n8k16; sums in f32, k rising.
static void multiply(Mma **lanes) {
    float a[16][16], b[16][8], c[16][8];
    for (int l = 0; l < 32; l++) {
        int g = l / 4, t = l % 4;
        for (int i = 0; i < 2; i++) {
            a[g][2 * t + i] = half(lanes[l]->a[0], i);
            a[g + 8][2 * t + i] = half(lanes[l]->a[1], i);
            a[g][2 * t + 8 + i] = half(lanes[l]->a[2], i);
            a[g + 8][2 * t + 8 + i] = half(lanes[l]->a[3], i);
            b[2 * t + i][g] = half(lanes[l]->b0, i);
            b[2 * t + 8 + i][g] = half(lanes[l]->b1, i);
            c[g][2 * t + i] = lanes[l]->c[i];
            c[g + 8][2 * t + i] = lanes[l]->c[2 + i];
        }
    }
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 16; k++)
            for (int j = 0; j < 8; j++) c[i][j] += a[i][k] * b[k][j];
    for (int l = 0; l < 32; l++) {
        int g = l / 4, t = l % 4;
        for (int i = 0; i < 2; i++) {
            lanes[l]->c[i] = c[g][2 * t + i];
            lanes[l]->c[2 + i] = c[g + 8][2 * t + i];
        }
    }
}

// Matrix m has its rows from lanes 8 m to 8 m + 7; lane l gets two numbers of each.
static void load(Matrix **lanes, bool transposed) {
    for (int l = 0; l < 32; l++) {
        int g = l / 4, t = l % 4;
        unsigned out[4];
        for (int m = 0; m < 4; m++) {
            uint16_t first, second;
            if (transposed) {
                first = lanes[8 * m + 2 * t]->row[g];
                second = lanes[8 * m + 2 * t + 1]->row[g];
            } else {
                first = lanes[8 * m + g]->row[2 * t];
                second = lanes[8 * m + g]->row[2 * t + 1];
            }
            out[m] = first | static_cast<unsigned>(second) << 16;
        }
        lanes[l]->out = {out[0], out[1], out[2], out[3]};
    }
}

static uint4 matrix(const uint16_t *row, bool transposed, int line) {
    const Block &b = *self().block;
    const unsigned char *at = reinterpret_cast<const unsigned char *>(row);
    if (at < b.shared || at + 16 > b.shared + b.shared_bytes) fail("a matrix is loaded from outside shared memory");
    if (reinterpret_cast<uintptr_t>(at) % 16 != 0) fail("a row of a matrix is not at a multiple of 16 bytes");
    Matrix mine{row, {}};
    together(mine, transposed ? "ldmatrix.trans" : "ldmatrix", line, [=](Matrix **l) { load(l, transposed); });
    return mine.out;
}

}  // namespace emulation

#define threadIdx (emulation::self().thread)
#define blockIdx (emulation::self().block->index)
#define blockDim (emulation::self().block->size)
#define gridDim (emulation::self().block->grid)
#define __syncthreads() emulation::barrier(__LINE__)

// A call's line is part of the place where lanes meet.
#define HERE int line = __builtin_LINE()

static inline float __uint_as_float(unsigned bits) { return emulation::number(bits); }
static inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
static inline float exponential(float x) { return std::exp(x); }

static inline unsigned rounded(float x) {
    unsigned bits;
    std::memcpy(&bits, &x, sizeof bits);
    if (x != x) return 0x7fff;
    return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}
static inline unsigned pack(float low, float high) { return rounded(low) | rounded(high) << 16; }

static inline float __shfl_xor_sync(unsigned, float v, int mask, HERE) {
    emulation::Number mine{v, 0.0f, mask};
    emulation::together(mine, "shfl.xor", line, [](emulation::Number **l) {
        for (int i = 0; i < 32; i++) l[i]->out = l[i ^ l[i]->mask]->in;
    });
    return mine.out;
}

static inline int __any_sync(unsigned, bool v, HERE) {
    emulation::Vote mine{v, 0};
    emulation::together(mine, "vote.any", line, [](emulation::Vote **l) {
        int any = 0;
        for (int i = 0; i < 32; i++) any |= l[i]->in;
        for (int i = 0; i < 32; i++) l[i]->out = any;
    });
    return mine.out;
}

static inline void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, HERE) {
    emulation::Mma mine{c, a, b0, b1};
    emulation::together(mine, "mma", line, emulation::multiply);
}

static inline uint4 ldmatrix(const uint16_t *row, HERE) { return emulation::matrix(row, false, line); }
static inline uint4 ldmatrix_transposed(const uint16_t *row, HERE) { return emulation::matrix(row, true, line); }
