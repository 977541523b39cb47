/* ScaLAPACK's Cholesky factor and inverse (pdpotrf, pdpotri) of a matrix of ones plus 2I, timed on a P x Q grid.
 *
 *   scalapack N NB P Q REPEATS
 *
 * prints a line "potrf SECONDS potrf+potri SECONDS dgemm GFLOPS" for each repeat; the DGEMM rate is of one rank alone. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

extern void Cblacs_pinfo(int *, int *);
extern void Cblacs_get(int, int, int *);
extern void Cblacs_gridinit(int *, const char *, int, int);
extern void Cblacs_gridinfo(int, int *, int *, int *, int *);
extern int numroc_(const int *, const int *, const int *, const int *, const int *);
extern void descinit_(int *, const int *, const int *, const int *, const int *, const int *, const int *, const int *,
                      const int *, int *);
extern void pdpotrf_(const char *, const int *, double *, const int *, const int *, const int *, int *);
extern void pdpotri_(const char *, const int *, double *, const int *, const int *, const int *, int *);
extern void dgemm_(const char *, const char *, const int *, const int *, const int *, const double *, const double *,
                   const int *, const double *, const int *, const double *, double *, const int *);

static double gemm_rate(void) {
    int n = 1500;
    double one = 1, *a = calloc((size_t)n * n, 8), *b = calloc((size_t)n * n, 8), *c = calloc((size_t)n * n, 8);
    dgemm_("N", "N", &n, &n, &n, &one, a, &n, b, &n, &one, c, &n);
    double begun = MPI_Wtime();
    dgemm_("N", "N", &n, &n, &n, &one, a, &n, b, &n, &one, c, &n);
    double seconds = MPI_Wtime() - begun;
    free(a), free(b), free(c);
    return 2e-9 * n * n * n / seconds;
}

int main(int argc, char **argv) {
    if (argc != 6) return fprintf(stderr, "usage: scalapack N NB P Q REPEATS\n"), 2;
    int n = atoi(argv[1]), nb = atoi(argv[2]), P = atoi(argv[3]), Q = atoi(argv[4]), repeats = atoi(argv[5]);
    int rank, size, context, row, column, zero = 0, one = 1, info;
    MPI_Init(&argc, &argv);
    Cblacs_pinfo(&rank, &size);
    Cblacs_get(-1, 0, &context);
    Cblacs_gridinit(&context, "Row", P, Q);
    Cblacs_gridinfo(context, &P, &Q, &row, &column);
    int rows = numroc_(&n, &nb, &row, &zero, &P), columns = numroc_(&n, &nb, &column, &zero, &Q);
    int descriptor[9];
    descinit_(descriptor, &n, &n, &nb, &nb, &zero, &zero, &context, &rows, &info);
    double *A = malloc((size_t)rows * columns * 8), rate = gemm_rate();
    for (int repeat = 0; repeat <= repeats; repeat++) { /* the first is a warm-up */
        for (int j = 0; j < columns; j++)
            for (int i = 0; i < rows; i++) {
                int global_i = (i / nb * P + row) * nb + i % nb, global_j = (j / nb * Q + column) * nb + j % nb;
                A[(size_t)j * rows + i] = global_i == global_j ? 3.0 : 1.0;
            }
        MPI_Barrier(MPI_COMM_WORLD);
        double begun = MPI_Wtime();
        pdpotrf_("L", &n, A, &one, &one, descriptor, &info);
        if (info) return fprintf(stderr, "pdpotrf: %d\n", info), 1;
        MPI_Barrier(MPI_COMM_WORLD);
        double factored = MPI_Wtime();
        pdpotri_("L", &n, A, &one, &one, descriptor, &info);
        if (info) return fprintf(stderr, "pdpotri: %d\n", info), 1;
        MPI_Barrier(MPI_COMM_WORLD);
        double ended = MPI_Wtime();
        if (rank == 0 && repeat) printf("potrf %.4f potrf+potri %.4f dgemm %.1f\n", factored - begun, ended - begun, rate);
    }
    MPI_Finalize();
    return 0;
}
