// What the kernels of training stand on: how activations are stored and multiplied, and dropout.
//
// Two forms of one source. Without SPLIT activations and their gradients are bfloat16 numbers, and a product has one factor
// each. With SPLIT they are f32, and a factor is two bfloat16 numbers, the second what the first leaves out; of the four
// products the smallest is left out, so that a product is exact to some 2^-16. Sums are f32 in both.
//
// Matrices are row-major, rows of a stride that is a multiple of 8 numbers; what stands beyond a row's columns is not read.

#if SPLIT
typedef float Real;
#define PLANES 2
DEVICE float value(Real x) { return x; }
DEVICE Real real(float x) { return x; }
#else
typedef u16 Real;
#define PLANES 1
DEVICE float value(Real x) { return __uint_as_float((u32)x << 16); }
DEVICE Real real(float x) { return bf16(x); }
#endif

// Two numbers side by side, the first at an even place of a row.
struct Two {
    float first, second;
};
#if SPLIT
DEVICE Two load_two(const Real *at) { return Two{at[0], at[1]}; }
DEVICE void store_two(Real *at, Two x) {
    at[0] = x.first;
    at[1] = x.second;
}
#else
DEVICE Two load_two(const Real *at) {
    u32 word = *(const u32 *)at;
    return Two{low(word), high(word)};
}
DEVICE void store_two(Real *at, Two x) { *(u32 *)at = pack(x.first, x.second); }
#endif

// A factor of A, 16 x 16.
struct Left {
    u32 word[PLANES][4];
};
// A factor of B, 16 x 16: two tiles of 8 columns.
struct Right {
    uint4 word[PLANES];
};

// c0, c1 += a b.
DEVICE void multiply(float (&c0)[4], float (&c1)[4], const Left &a, const Right &b) {
    mma(c0, a.word[0], b.word[0].x, b.word[0].y);
    mma(c1, a.word[0], b.word[0].z, b.word[0].w);
#if SPLIT
    mma(c0, a.word[0], b.word[1].x, b.word[1].y);
    mma(c1, a.word[0], b.word[1].z, b.word[1].w);
    mma(c0, a.word[1], b.word[0].x, b.word[0].y);
    mma(c1, a.word[1], b.word[0].z, b.word[0].w);
#endif
}

// Two numbers of one plane: of the second what the first leaves out.
DEVICE u32 plane(float first, float second, int p) {
    u32 word = pack(first, second);
    return p == 0 ? word : pack(first - low(word), second - high(word));
}

// Sums of 16 x 16 as a factor.
DEVICE void to_left(Left &a, const float (&c0)[4], const float (&c1)[4]) {
#pragma unroll
    for (int p = 0; p < PLANES; p++) {
        a.word[p][0] = plane(c0[0], c0[1], p);
        a.word[p][1] = plane(c0[2], c0[3], p);
        a.word[p][2] = plane(c1[0], c1[1], p);
        a.word[p][3] = plane(c1[2], c1[3], p);
    }
}

// Factors from shared memory, whose second plane is `apart` numbers after the first. Rows of `pitch` numbers.
// Left: rows are rows of A.
DEVICE void load_left(Left &a, const u16 *at, u32 pitch, u32 apart, u32 lane) {
    const u32 m = lane / 8;
#pragma unroll
    for (int p = 0; p < PLANES; p++) {
        uint4 v = ldmatrix(at + p * apart + (m % 2 * 8 + lane % 8) * pitch + m / 2 * 8);
        a.word[p][0] = v.x;
        a.word[p][1] = v.y;
        a.word[p][2] = v.z;
        a.word[p][3] = v.w;
    }
}
// Left: rows are columns of A.
DEVICE void load_left_transposed(Left &a, const u16 *at, u32 pitch, u32 apart, u32 lane) {
    const u32 m = lane / 8;
#pragma unroll
    for (int p = 0; p < PLANES; p++) {
        uint4 v = ldmatrix_transposed(at + p * apart + (m / 2 * 8 + lane % 8) * pitch + m % 2 * 8);
        a.word[p][0] = v.x;
        a.word[p][1] = v.y;
        a.word[p][2] = v.z;
        a.word[p][3] = v.w;
    }
}
// Right: rows are columns of B, as a linear map's weight of outputs x inputs has them.
DEVICE void load_right(Right &b, const u16 *at, u32 pitch, u32 apart, u32 lane) {
    const u32 m = lane / 8;
#pragma unroll
    for (int p = 0; p < PLANES; p++)
        b.word[p] = ldmatrix(at + p * apart + (m / 2 * 8 + lane % 8) * pitch + m % 2 * 8);
}
// Right: rows are rows of B.
DEVICE void load_right_transposed(Right &b, const u16 *at, u32 pitch, u32 apart, u32 lane) {
    const u32 m = lane / 8;
#pragma unroll
    for (int p = 0; p < PLANES; p++)
        b.word[p] = ldmatrix_transposed(at + p * apart + (m % 2 * 8 + lane % 8) * pitch + m / 2 * 8);
}

// The mask of `lately_kernels::dropout`.
struct Dropout {
    u32 first, second;
    float rate;
};

// 0 for a dropped element, else 1 / (1 - rate).
DEVICE float factor(const Dropout &d, u32 index) {
    u32 x = index ^ d.first;
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    x ^= x >> 16;
    return x + d.second < (u32)(d.rate * 4294967296.0f) ? 0.0f : 1.0f / (1.0f - d.rate);
}

DEVICE float warp_sum(float v) {
    for (int apart = 16; apart > 0; apart >>= 1) v += __shfl_xor_sync(0xffffffffu, v, apart);
    return v;
}
