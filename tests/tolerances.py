"""Every tolerance of the tests: how far two numbers may be apart, and why so far.

A name stands for one reason, and every test that has that reason uses it; tests/test_layering.py finds numbers that are
written elsewhere. Tolerances are relative where nothing else is said. Half a unit in the last place is u = 1.1e-16 in
float64 and 6e-8 in float32. Sums of n terms in two orders differ by n u at worst and, as errors have either sign, by
about sqrt(n) u. "Measured" is the largest deviation in the tests that use the name, on x86-64 with AVX-512, NumPy 2.4,
SciPy 1.17, PyTorch 2.13 and ONNX Runtime 1.31.
"""

U_FLOAT32 = 2.0**-24  # half a unit in the last place of 1 in float32: what bounds of float32 arithmetic are counted in

# --- sums of float64 numbers

# The same number by a few operations in another order: nine roundings. Measured: 5.9e-16.
FEW_ROUNDINGS = 1e-15

# Moments beside two passes in extended precision, relative to sqrt(s_ii s_jj): blocks of 383 rows, sqrt(383) u = 2e-15.
# Measured: 1.4e-15. A line of docs/numerics.md rests on it; MOMENTS is for what is harder.
TWO_PASSES = 2e-15

# Moments relative to sqrt(s_ii s_jj), and means relative to the largest value, of up to 4,000 rows that are merged,
# drift, or have an offset or an outlier: sqrt(4000) u = 7e-15. Measured: 3.6e-15 (the outlier), else 2e-15.
MOMENTS = 1e-14

# Covariances and scatters of up to 4,200 rows, relative to the largest element. As MOMENTS, but the largest element is
# seldom where the error is largest. Measured: 7e-16.
COVARIANCE = 5e-15

# Sums of up to 12,700 terms relative to that of their absolute values, and distances that hang on such sums.
# sqrt(12700) u = 1.2e-14. Measured: 5e-15.
ANOTHER_ORDER = 1e-13

# KIDs, which are differences of means several times as large, and what they are made of: n u of 1,000 terms is 1.1e-13.
# Measured: 3e-14.
KERNEL_MEANS = 1e-12

# The golden numbers of tests/test_functions_on_features.py, by NumPy alone and another order of sums; the KIDs among
# them are differences of means 40 times as large. Measured: 2e-14 (a standard deviation of scores).
GOLDEN = 1e-12

# A Vendi score whose order differs from 1 by 1e-9, relative: half the variance of the logarithms of the eigenvalues,
# 0.08 there, times that. Measured: 3.8e-11.
NEAR_A_LIMIT = 1e-9

# A Vendi score of order 0.5, relative, where eigenvalues that are 0 are roundings of 1e-17: roots of 55 of them at
# worst, 2e-7, beside a sum of roots of 3. Measured: 4.4e-16 (all but a few are negative).
ROOTS_OF_ROUNDINGS = 5e-7

# A KID of float32 features by float32 products and sums, absolute, times the mean of the kernel, which is 1 to 3 in
# these tests: 1,000^2 products of d = 64 are off by sqrt(64) u each, and means of them by less. Measured: 1.4e-7.
KID_FLOAT32 = 1e-6

# An Inception Score by float32 softmaxes and sums: the exponential of a mean of up to 101,000 terms, of which the sums
# of a row are 3, is off by some sqrt(1008) u of that. Promised to 1e-5. Measured: 8e-8.
SCORE_FLOAT32 = 1e-5

# CMMDs, absolute: 1,000 times differences of means of kernels of order 1, taken as such in the golden number: a few u
# 1000 = 1e-13 each. Measured: 1.0e-13.
CMMDS = 1e-12
# The same of unit vectors in float32, absolute: a CMMD of 0.1, quadratic in features that are rounded by 6e-8 each.
# Measured: 1.6e-11.
CMMD_FLOAT32 = 2e-8
# Between the bounds of a CMMD from moments, by its docstring: 4000 (exp(0.01) - 1 - 0.01 - 0.01^2 / 2) exp(-0.01).
CMMD_BRACKET = 6.7e-4

# Means of up to 5,329 values of 1e3 and either sign, absolute: partial sums reach 7e4, and sqrt(5329) roundings of
# 7e4 u, divided by 5,329, are 1e-13. (Float32 adds its own rounding.)
CANCELLED_MEAN = 1e-12

# --- float64 distances

# SciPy's square root of the product of two covariances of real features, d = 2048, which is as ill-conditioned as they
# are. docs/numerics.md says 1e-9. Measured: 7e-11.
SCIPYS_ROOT = 1e-9
# The same of at most 12 dimensions, and of 600 with conditions up to 1e3. Measured: 3e-14.
SCIPYS_ROOT_SMALL = 1e-12
# The same of singular covariances, n <= d, relative to the distance, which is as large as a trace: SciPy's root has
# those of roundings of 0, sqrt(u) = 1e-8 of the largest. Ours is exact. Measured: 1.1e-9.
SCIPYS_ROOT_SINGULAR = 2e-8
# Intercept, slope and residuals of lines through such distances: differences of them, some 10 times as small, and
# residuals 100 times. Measured: 1.6e-14.
INTERCEPT = 1e-12

# The sum of 400 singular values by NumPy: each is off by up to 400 u of the largest, the sum by 1.8e-11 of that at
# worst. Measured: 1.0e-12.
SINGULAR_VALUES = 1e-11

# A Gaussian beside itself, absolute: 40 dimensions and traces of 80 are 40 u 80 = 4e-13. Measured: 0.
EQUAL_GAUSSIANS = 1e-12
# A set of images beside itself, absolute: sums of equal rows are equal, but for the trace of the root. 400 rows and a
# trace of 70 are 400 u 2 70 = 6e-12, measured 5e-14 of 400 random rows; 20 rows and a trace of 1e6 are 4e-9 at worst,
# sqrt(20) u 2e6 = 1e-9 by the signs. Measured: 0.
EQUAL_SETS = 1e-9
# n <= d by statistics without rows, absolute: eigenvalues of the covariance that ought to be 0 are roundings, and the
# trace has their roots; docs/numerics.md: up to 1e-9 of a trace, which is of order 10. Measured: 1e-12.
SINGULAR_FROM_FILE = 1e-8

# --- the trace T of the square root, relative to T, and its bounds

# Two routes in float64 to the same T, or to the sampling bias: sqrt(500) u = 2.5e-15 at d = 500. Measured: 1.1e-15.
TWO_ROUTES = 1e-14
# T where covariances from a closed form, or eigenvalues on the way, have been rounded, which the roots of small ones
# magnify: conditions up to 1e9, d up to 4,096. Measured: 1e-14.
ROUNDED_ROOTS = 1e-13
# Singular values whose squares are lost in rounding: the route through eigenvalues keeps them as long as they may take
# kEigenError of T (csrc/core/trace_sqrt.cpp). Also what rounding takes from T at conditions from 1e9 on.
# Measured: 6.9e-11.
LOST_ROOTS = 1e-9
# Scales that are no powers of two round every element once more: u, times conditions of up to 1e3. Of distances and
# influences too. Measured: 3.8e-15.
ANOTHER_SCALE = 1e-13
# A polar iteration that stops after one stage, beside other routes: docs/numerics.md has 5e-13. Measured: 9.2e-13.
NEWTON_SCHULZ = 1e-11
# The same of a single singular value, where only the polynomials' error at 1 counts. Measured: 5.5e-14.
RANK_ONE = 1e-12
# kPolarTol: a polar iteration without tol= is asked for this, and rounding in the factors that adds more has a note;
# a bracket of twice as much can have none. Measured of a condition of 1e12: 9.8e-8; of brackets: 2.9e-7.
DEFAULT_TOL = 1e-6
# Width of the brackets of eigenvalues and of the rational route without tol=: docs/numerics.md has 1.1e-8 and 8.9e-8 at
# d = 2048. Measured: 9.5e-8 (d = 4096).
FREE_BRACKET = 5e-7
# The same where the last iterations ran in float32, emulated: errors of X count squared, (40 u_float32)^2 = 6e-12.
# Measured: 8.4e-12.
LATE_FLOAT32 = 1e-10
# Width of the certificate of an exact polar factor: what the rounding of its products may be at worst, a hundred or so
# u at 12 x 8. Measured: 2.0e-14.
CERTIFICATE = 1e-13
# ||Sigma - F^T F||_F relative to the trace: Cholesky's theorem has (d + 1) u, the signs of errors much less.
# Measured: 2.1e-16 (d = 1: the root's rounding twice).
FACTOR_RESIDUAL = 1e-15
# That residual itself, relative to it: the small parts of the split products are rounded, 2^-26 u each, beside 0.6 u,
# and 12 features have sqrt(12) of them: 9e-8. Measured: 1.2e-8.
MEASURED_RESIDUAL = 1e-7

# Distances of rows that are a million off: means are rounded to 1e6 u = 1.2e-10, and each difference of means counts
# twice, 6e-9 beside a distance of 41 at worst. Measured: 2.8e-11.
OFFSET_OF_A_MILLION = 2e-10

# Statistics rounded to float32, relative to the traces: docs/numerics.md says 1e-4 for the value. Measured: 4.9e-5.
FLOAT32_STATISTICS = 1e-4
# The bounds of such: docs/numerics.md has measured 4e-3. Measured here: 5.7e-4.
FLOAT32_BOUNDS = 5e-3
# How negative an eigenvalue is at least, of a largest one of order 1, where no float64 number explains it.
# Measured: 1.2e-9.
INDEFINITE = 1e-10

# --- a CUDA device: predictions, for nothing has run on one yet; emulated where that is said

# Moments relative to the largest element, by arithmetic; docs/cuda.md has these numbers.
#   float64: n u of rounding in the worst case; n = 6000 gives 7e-13. Measured, emulated: 6e-15.
#   float32: products of 256 rows are summed in float32 (u = 6e-8); errors are of random sign. Measured, emulated: 4e-7.
MOMENTS_ON_DEVICE = {"float64": 1e-13, "float32": 1e-6}
# The same after a merge or a state: docs/cuda.md says 1e-12, n u of 9,000 rows.
MERGED_ON_DEVICE = 1e-12
# Distances beside the CPU's, relative to the sum of the traces, which is at least twice the trace of the root: that is
# asked for to 1e-9, and singular sides have roots of roundings as in SINGULAR_FROM_FILE. Measured, emulated: 1.3e-12.
DISTANCE_ON_DEVICE = 1e-8
# Features beside the CPU's, absolute, by precision. float32: ten times FEATURES, as cuDNN chooses its algorithms. tf32
# and float16: each layer is rounded to 11 bits, which moves features by 1.2e-2 (fastfid/precisions.py).
FEATURES_ON_DEVICE = {"float32": 1e-4, "tf32": 5e-2, "float16": 5e-2}
# A distance by such float32 features, returned in float32.
FID_ON_DEVICE = 1e-4
# A set on the device and the same on the host, absolute: equal features (another test), a trace to about 1e-9.
EQUAL_SETS_ON_DEVICE = 1e-6

# --- results rounded to float32

# A float64 number stored as float32: half a unit in the last place, 5.97e-8, and u of float64.
ROUNDED_TO_FLOAT32 = 6e-8
# A distance returned as float32: the above, and what raw sums, from which means are subtracted late, lose in float64.
# Measured: 3.4e-8.
FLOAT32_VALUE = 2.5e-7
# Means of a few float32 numbers in float32, as clean-fid takes them of float32 features, and distances by such means:
# n = 9 gives n u = 5e-7, and a square twice that. Measured: 1.1e-7.
FLOAT32_MEANS = 1e-6

# FIDs, and KIDs with their cubes, of means of 240 pixels in float32 beside the same in float64: NETWORKS_INPUT of
# features that are 1 apart. Measured: 1.1e-7.
FLOAT32_FEATURES = 1e-6
# Products of 720 float32 terms of order 1 and either sign, absolute: partial sums reach 50, and sqrt(720) roundings of
# 50 u are 8e-5. Measured: 3.4e-5.
FLOAT32_PRODUCT = 1e-4

# --- features of the network, absolute

# The largest features are 5 to 9. Photographs, the float32 network beside itself in float64. Measured: 2.6e-6 (and
# PyTorch's own, 3.9e-6).
FEATURES_EXACT = 5e-6
# Photographs, two float32 networks: 2.6e-6 + 3.9e-6. README: "features within about 1e-5". Measured: 6.0e-6.
FEATURES = 1e-5
# Small images blown up to 299 pixels, two float32 networks: 1.3e-5 (ours) and 1.9e-5 (PyTorch's) from
# float64. Measured: 1.4e-5.
FEATURES_BLOWN_UP = 4e-5
# Images of 32 to 420 pixels, or read without a resize, two float32 networks: twice 2.3e-5 + 1.3e-5, the next line.
# Measured: 1.7e-5. Any other protocol is 0.02 or more away.
FEATURES_MIXED = 7e-5
# White noise, and maps of 1 to 4 pixels or spatial features, so that no mean evens the rounding out, float32 beside
# float64. Measured: 2.3e-5 (PyTorch's own: 1.3e-5).
FEATURES_OF_NOISE = 5e-5
# Two float16 networks, which round each layer's output to 11 bits, from sums in another order. Measured: 1.9e-4.
FEATURES_FLOAT16 = 6e-4
# What float16 moves features by at least, or it was not float16 that ran. Measured: 2.3e-3.
FLOAT16_SHOWS = 1e-4
# Two float64 networks: FEATURES_EXACT times 2^-29 is 1e-14. Measured: 7e-15.
FEATURES_FLOAT64 = 1e-13

# --- the peers

# The same features, n > d, float64 to the end: u times the condition of SciPy's root. docs/migrating.md says 1e-10.
# Measured: 1.7e-12.
PEERS_DISTANCE = 1e-10
# Features of two float32 networks, n > d. README: "FID within 1e-6 relative". Measured: 1.0e-7.
# Also n <= d by two float64 networks, where the peer takes eigenvalues of a singular product. Measured: 5.3e-7.
PEERS_FID = 1e-6
# n <= d, absolute: the peer takes the square root, or the eigenvalues, of a singular product, and from roundings of 0
# their roots; ours is exact. docs/migrating.md: "up to about 1e-4". Measured: 1.9e-5.
PEERS_SINGULAR = 1e-4

# Relative, of small images blown up or of mixed sizes, whose features differ by 8e-6 and more. Measured: 8.8e-7.
PEERS_FID_BLOWN_UP = 1e-5
# A number that a peer prints to four decimals, absolute: half of the last.
PRINTED_TO_4 = 5e-5
# Means and covariances of 20 images at dims 64, features from two float32 networks: relative, and absolute for
# covariances near 0. Features of up to 4 differ by 4e-7. Measured: 0.37 of the two together.
PEERS_MOMENTS = {"rtol": 1e-5, "atol": 1e-7}
# The same float32 network at dims 64, up to 4.4, of images that clean-fid and we resize, absolute; and means and
# covariances of it. Measured: 2.4e-7, half a unit in the last place of 4.
PEERS_NETWORK = 1e-6
# Sums, and sums of products, of positive features at dims 64 from two float32 networks. Measured: 1.3e-6.
PEERS_SUMS = 1e-5
# The same of two float64 networks, whose input is float32 with us and float64 with the peer: u_float32 a pixel.
# Measured: 9.5e-7.
PEERS_SUMS_FLOAT64 = 2e-6
# Logits of two float32 networks by a matrix of deviation 0.05: errors of features, times 0.05 sqrt(2048), and the
# peer's sums of 2,048 products in float32, absolute. Measured: 6.1e-6.
PEERS_LOGITS = 5e-5
# KIDs of such features, or that the peer takes in float32. docs/migrating.md says 1e-5. Measured: 1.5e-6.
PEERS_KID = 1e-5
# Statistics of the same set, ours and the peer's, n > d, absolute: SCIPYS_ROOT of traces of order 10.
# Measured: 5.5e-10.
PEERS_EQUAL_SETS = 1e-8
# What pytorch-fid's root, and torchmetrics' eigenvalues, of singular products are off by at least where ours are said
# to be better. Measured: 5.9e-5 and 2.2e-8.
PEERS_ROOT_SHOWS = 1e-7
PEERS_EIGENVALUES_SHOW = 1e-9

# --- images, in grey levels of 0 to 255

# Resized by the peers' resizers, in float32: u 255 = 1.5e-5 for each of some roundings. docs/protocols.md promises
# 1e-3, and has measured 1.5e-4 up to 4000 x 3000.
GREY_LEVELS = 1e-3
# The network's input, of values up to 2.6, by float32 numbers of about 8 roundings: 8 u 2.6 = 1.2e-6. Measured: 3.6e-7.
# Also means of it, and of its squares, whose roundings even out. Measured: 4.0e-7.
NETWORKS_INPUT = 2e-6
# Weights of a filter, each rounded to float32, summed: their absolute values have sums up to 1.3, normalised. Measured:
# 1.7e-7.
SUM_OF_WEIGHTS = 1e-6
# The share of levels that are cut off to the one below by us or by the peer only: values within GREY_LEVELS of a whole
# number, of which 1.5e-4 either way is likely.
CUT_APART = 1e-3
# Rounded to whole levels, here or in Pillow, which composites in whole numbers. Measured: 0.5.
ONE_LEVEL = 1
# A picture of one colour through JPEG and WebP of Pillow's default quality: YCbCr of whole levels, then quantised.
# Measured: 3.
LOSSY_LEVELS = 3

# --- the rest: printed numbers

# Printed with three digits after the point: half a unit of the third, and the binary rounding of what is compared.
PRINTED_3 = 5.001e-4
# The same with four.
PRINTED_4 = 5.001e-5
# The same with six.
PRINTED_6 = 5.001e-7
# A whole number.
PRINTED_0 = 0.5001
# Relative, with six significant digits: half a unit of the sixth is at most 5e-6 of the number; and a float32 value.
PRINTED_6_DIGITS = 5.1e-6
# Relative, with four.
PRINTED_4_DIGITS = 5.1e-4
# Relative, with two.
PRINTED_2_DIGITS = 0.0501

# --- examples/ttur

# The toy problem near its equilibrium beside its linear form, relative: the terms left out are (1e-6)^2 of it, and 50
# steps are 50 roundings; derivatives by differences of 1e-6 of numbers of order 100 are good to 1e-8 / 1e-6 / 100.
TOY_LINEAR = 1e-7
# Deviations of an AR(1) process of memory up to 500 steps, out of 200 runs of 3,000 steps, relative: 200 * 3000 / 1000
# independent values, so 1 / sqrt(2 * 600) = 0.03, three times that.
SPREAD_OF_RUNS = 0.09

# --- samples

# A derivative by central differences over shares of 1e-4, relative to the range of the values: what the third order
# leaves, and the errors of two traces over 2e-4. Measured: 3.6e-7.
FINITE_DIFFERENCES = 1e-6
# How many standard deviations a mean of many draws may be off: 6e-5 by chance.
DEVIATIONS = 4
# The standard deviation of 200 values is known to 5 %; four times that.
SPREAD_OF_200 = 0.2
# That of 250 or 300 values, each from two sets, to 4.5 % or 4.1 %, and somewhat worse as FIDs are skewed; 3.3 times
# that. Measured: 11 %.
SPREAD_OF_250 = 0.15
# That of 1,000 KIDs to 2.5 %, three times that; and the first-order term of the variance, whose estimate has a limit
# below, adds up to 6 % at equality. Measured: 8.5 %, 2.0 % where the sets differ.
SPREAD_OF_1000_KIDS = 0.14
# Standard errors of prdc beside the spread of 250 values, which is known to 4.5 %: the 15 % that the docs promise.
# Measured: 5.5 %.
SPREAD_OF_BALLS = 0.15
# The same beside those from all neighbours: one ball of a half in 10^4 is too small. Measured: 0.
FEW_NEIGHBOURS = 0.01
# A variance from 64 random subsets, the mean over 60 sets of 400 rows: its noise is 2.5 %.
MEAN_OF_60_VARIANCES = 0.08
# The mean of 2,000 variances that are spread by 10 % each: 0.24 %, four times that. Measured: 0.23 %.
MEAN_OF_2000 = 0.01
# The spread of those variances is known to 1.6 %, and what a variance says of its own error comes from fourth moments,
# of which a few hundred heavy-tailed rows find too little. Measured: 3.6 %.
RELATIVE_ERROR_OF_2000 = 0.1
# Degrees of freedom of 200 normal rows, 2 / (kurtosis - 1) of their number: the median kurtosis of such samples is 2.93
# rather than 3, which is 4 % of the freedom, and the median of 500 is known to 1 %. Measured: 6.5 %.
FREEDOM_OF_200 = 0.1
# The plug-in form under-corrects more the fewer the rows: by n / d, what the mean bias lacks at worst beside the true
# one, which is known to a third of what `abs` allows in the test. docs/numerics.md has 0.25, 0.14, 0.12 and 0.03 of
# d = 32. Measured: 0.25, 0.13, 0.14, 0.09 and 0.09 (most of the last two by chance: 0.04 and 0.08 is one deviation).
PLUG_IN_BIAS = {1.25: 0.30, 2: 0.20, 3: 0.15, 5: 0.12, 20: 0.12}
# Central differences of distances of 10 with steps of 5e-6: u 10 / 5e-6 = 2e-10 and as much by h^2, absolute, beside
# derivatives from 0.05 on. Measured: 1.1e-8.
DERIVATIVE = 1e-7
# Influence of rows rounded to float32, relative to the largest: a square of rows u_float32 off. Measured: 1.1e-7.
INFLUENCE_FLOAT32 = 5e-7
# The quantile that metrics/differences.py computes says 1e-7. Measured: 6.7e-10.
STUDENTS_QUANTILE = 1e-8

# --- the rest

# The variance of 64,000 normal numbers, of which 4,000 rows of 16 have the trace: sqrt(2 / 64000) = 0.6 %; four times
# that. Measured: 0.4 %.
SAMPLED_VARIANCE = 0.022

# What is another number altogether, for tests that something matters: another resize, another set.
ANOTHER_NUMBER = 1e-3
# Distances and scores of 20 and 20 images, by features of two float32 networks up to 7e-5 apart (FEATURES_MIXED) where
# distances of features are of order 10. Measured: 3.5e-7.
ADM_OF_TWO_NETWORKS = 5e-6

# Features of a Vision Transformer of two layers in float32, after the last LayerNorm: torch's sums and ONNX Runtime's
# take other orders. The promise is 1e-4.
TRANSFORMERS_FEATURES = 1e-4
# Of a real network of some 60 layers, relative to the largest feature: ONNX Runtime's float32 beside NumPy's.
REAL_NETWORK = 1e-4

# The FID without a row less that of all rows, relative to the FID, beside the difference of two distances. It cancels
# digits, and their own numerical bounds are up to 1e-7. The quadrature has one of exp(-pi^2 / 0.3) = 5e-15.
# Measured: 1.7e-11.
LEAVE_ONE_OUT = 1e-10

# Where a rank is lost without the row, log(1 - c^T (K + t^2)^-1 c) has no digits for t below 1e-8 of the largest root.
# Measured: 4e-8.
LEAVE_ONE_OUT_WITHOUT_RANK = 1e-6
