// Loops that are compiled for several instruction sets. The loader picks one of the clones at run time.
//
// All clones must give the same bits. Every output value is therefore a chain of operations of its own, in a fixed
// order, and -ffp-contract=off forbids fused multiply-adds.
#pragma once

#include <cstddef>  // any header of the C library defines __GLIBC__, whose loader resolves the clones

// No clones under sanitizers: they instrument the resolver, which runs before the sanitizer's runtime is ready.
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(FASTFID_SANITIZED)
#define FASTFID_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FASTFID_CLONES
#endif
