// What all kernels stand on: words, bfloat16 and the tensor cores' instructions.
//
// Compiled by NVRTC without a header. Where __CUDACC_RTC__ is not defined, the names below that are no C++ come from the
// emulation of the crate's tests, which runs these very files on a CPU.
//
// Fragments are those of mma.sync.m16n8k16 (PTX ISA, "Matrix Fragments for mma.m16n8k16"). With g = lane / 4 and
// t = lane % 4 a lane holds of A (16 x 16) rows g and g + 8, columns 2t, 2t + 1, 2t + 8, 2t + 9; of B (16 x 8) rows 2t,
// 2t + 1, 2t + 8, 2t + 9, column g; of C (16 x 8) rows g and g + 8, columns 2t and 2t + 1.
//
// Matrices lie in memory as fragments, so that a warp loads one by one 16-byte load a lane, without shared memory:
// - A, rows x k:  [row / 16][k / 16][lane][4 words].
// - B, k x n, or a weight's outputs n x inputs k:  [n / 16][k / 16][lane][4 words], two tiles of 8 columns.

typedef unsigned int u32;
typedef unsigned short u16;

#define CEIL16(n) (((n) + 15) / 16 * 16)

#ifdef __CUDACC_RTC__

#define SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#define DEVICE __device__ __forceinline__

// Two numbers rounded to the nearest bfloat16, ties to even.
DEVICE u32 pack(float low, float high) {
    u32 word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}

// c += A B.
DEVICE void mma(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8 x 8 matrices of 16-bit numbers; lane l points to row l % 8 of matrix l / 8, 16 bytes.
DEVICE uint4 ldmatrix(const u16 *row) {
    uint4 m;
    u32 at = (u32)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(m.x), "=r"(m.y), "=r"(m.z), "=r"(m.w) : "r"(at) : "memory");
    return m;
}

// The same, each matrix transposed.
DEVICE uint4 ldmatrix_transposed(const u16 *row) {
    uint4 m;
    u32 at = (u32)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(m.x), "=r"(m.y), "=r"(m.z), "=r"(m.w) : "r"(at) : "memory");
    return m;
}

DEVICE float exponential(float x) { return __expf(x); }

#endif

#define MINUS_INFINITY __uint_as_float(0xff800000u)

DEVICE float low(u32 word) { return __uint_as_float(word << 16); }
DEVICE float high(u32 word) { return __uint_as_float(word & 0xffff0000u); }
DEVICE u16 bf16(float x) { return (u16)pack(x, 0.0f); }

// Over the four lanes that hold a row of C.
DEVICE float quad_sum(float v) {
    v += __shfl_xor_sync(0xffffffffu, v, 1);
    return v + __shfl_xor_sync(0xffffffffu, v, 2);
}
DEVICE float quad_max(float v) {
    v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 1));
    return fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 2));
}
DEVICE float warp_max(float v) {
    for (int apart = 16; apart > 0; apart >>= 1) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, apart));
    return v;
}

// The 16-bit number of A that is row x column, of `tiles` tiles a row.
DEVICE size_t a_index(u32 row, u32 column, u32 tiles) {
    u32 lane = row % 8 * 4 + column % 8 / 2;
    u32 word = row % 16 / 8 + column % 16 / 8 * 2;
    return ((((size_t)(row / 16) * tiles + column / 16) * 32 + lane) * 4 + word) * 2 + column % 2;
}
