// The products of cuBLAS that CuPy asks for, over host memory, behind the driver's queue.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

extern "C" {
void executing_push(const void*, void (*)(void*), void*);
int executing_is_device(const void*, size_t);
void executing_complain(const char*);
void executing_count(const char*);
}

enum { R_32F = 0, R_64F = 1 };                                      // of cudaDataType
enum { COMPUTE_32F = 68, COMPUTE_32F_FAST_TF32 = 77, COMPUTE_64F = 70,
       COMPUTE_32F_PEDANTIC = 69, COMPUTE_64F_PEDANTIC = 71 };  // of cublasComputeType_t
enum { INVALID_VALUE = 7, EXECUTION_FAILED = 14 };

// Columns are stored one after the other: C (m, n) = alpha op(A) op(B) + beta C, with k between them.
struct Product {
  bool transpose_a, transpose_b;
  int m, n, k;
  double alpha, beta;
  const void *A, *B;
  void* C;
  int lda, ldb, ldc, compute;
};

template <class T> static void multiply(const Product& p, const T* A, const T* B) {
  T* C = (T*)p.C;
  std::vector<T> column(p.m);
  for (int j = 0; j < p.n; j++) {
    for (int i = 0; i < p.m; i++) column[i] = 0;
    for (int l = 0; l < p.k; l++) {
      const T b = p.transpose_b ? B[j + (size_t)l * p.ldb] : B[l + (size_t)j * p.ldb];
      if (p.transpose_a) {
        for (int i = 0; i < p.m; i++) column[i] += A[l + (size_t)i * p.lda] * b;
      } else {
        const T* a = A + (size_t)l * p.lda;
        for (int i = 0; i < p.m; i++) column[i] += a[i] * b;
      }
    }
    T* out = C + (size_t)j * p.ldc;
    for (int i = 0; i < p.m; i++) out[i] = (T)p.alpha * column[i] + (p.beta != 0 ? (T)p.beta * out[i] : (T)0);
  }
}

// The nearest float whose fraction has 10 bits, ties to even.
static float tf32(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  if ((bits & 0x7f800000) == 0x7f800000) return x;
  bits = (bits + 0xfff + (bits >> 13 & 1)) & ~0x1fffu;
  memcpy(&x, &bits, 4);
  return x;
}
static std::vector<float> rounded(const void* matrix, int rows, int columns, int ld) {
  std::vector<float> copy((const float*)matrix, (const float*)matrix + (size_t)(columns - 1) * ld + rows);
  for (float& x : copy) x = tf32(x);
  return copy;
}
static void run(void* given) {
  const Product p = *(Product*)given;
  delete (Product*)given;
  if (p.compute == COMPUTE_64F || p.compute == COMPUTE_64F_PEDANTIC) {
    multiply(p, (const double*)p.A, (const double*)p.B);
  } else if (p.compute != COMPUTE_32F_FAST_TF32) {
    multiply(p, (const float*)p.A, (const float*)p.B);
  } else {
    const auto A = rounded(p.A, p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k, p.lda);
    const auto B = rounded(p.B, p.transpose_b ? p.n : p.k, p.transpose_b ? p.k : p.n, p.ldb);
    multiply(p, A.data(), B.data());
  }
}

static int refuse(int status, const char* what) { executing_complain(what); return status; }
static bool is_foreign(const void* matrix, int rows, int columns, int ld, size_t item) {
  return !executing_is_device(matrix, ((size_t)(columns - 1) * ld + rows) * item);
}

extern "C" {
struct Handle { void* stream = nullptr; int pointer_mode = 0, math_mode = 0; };
int cublasCreate_v2(Handle** out) { *out = new Handle; executing_count("handles"); return 0; }
int cublasDestroy_v2(Handle* handle) { delete handle; executing_count("destroyed_handles"); return 0; }
int cublasGetVersion_v2(Handle*, int* out) { *out = 130200; return 0; }
int cublasSetStream_v2(Handle* handle, void* given) { handle->stream = given; return 0; }
int cublasGetStream_v2(Handle* handle, void** out) { *out = handle->stream; return 0; }
int cublasSetPointerMode_v2(Handle* handle, int mode) { handle->pointer_mode = mode; return 0; }
int cublasGetPointerMode_v2(Handle* handle, int* out) { *out = handle->pointer_mode; return 0; }
int cublasSetMathMode(Handle* handle, int mode) { handle->math_mode = mode; return 0; }
int cublasGetMathMode(Handle* handle, int* out) { *out = handle->math_mode; return 0; }

int cublasGemmEx(Handle* handle, int ta, int tb, int m, int n, int k, const void* alpha, const void* A, int type_a, int lda,
                 const void* B, int type_b, int ldb, const void* beta, void* C, int type_c, int ldc, int compute, int) {
  executing_count("products");
  const bool is_double = type_a == R_64F;
  if (type_a != type_b || type_a != type_c || (type_a != R_32F && !is_double)) {
    return refuse(INVALID_VALUE, "a product of types that xpnet does not have");
  }
  const bool is_pedantic = compute == (is_double ? COMPUTE_64F_PEDANTIC : COMPUTE_32F_PEDANTIC);
  if (!is_pedantic && (is_double ? compute != COMPUTE_64F : compute != COMPUTE_32F && compute != COMPUTE_32F_FAST_TF32)) {
    return refuse(INVALID_VALUE, "a product that is computed in another type than its matrices'");
  }
  if (handle->pointer_mode) return refuse(INVALID_VALUE, "a product whose factors lie on the device");
  const int rows_a = ta ? k : m, rows_b = tb ? n : k;
  if (m < 1 || n < 1 || k < 1 || lda < rows_a || ldb < rows_b || ldc < m) {
    return refuse(INVALID_VALUE, "a product with a leading dimension that is too small");
  }
  const size_t item = is_double ? 8 : 4;
  if (is_foreign(A, rows_a, ta ? m : k, lda, item) || is_foreign(B, rows_b, tb ? k : n, ldb, item) ||
      is_foreign(C, m, n, ldc, item)) {
    return refuse(EXECUTION_FAILED, "a product of what is no device memory");
  }
  if (compute == COMPUTE_32F_FAST_TF32) executing_count("tf32_products");
  if (is_pedantic) executing_count("pedantic_products");
  const double scale = is_double ? *(const double*)alpha : *(const float*)alpha;
  const double keep = is_double ? *(const double*)beta : *(const float*)beta;
  executing_push(handle->stream, run, new Product{(bool)ta, (bool)tb, m, n, k, scale, keep, A, B, C, lda, ldb, ldc, compute});
  return 0;
}
}
