// Loops compiled for several instruction sets, of which the loader picks one at run time.
//
// All clones must give the same bits: every output value is a chain of operations of its own, in a fixed order, and
// -ffp-contract=off forbids fused multiply-adds.
#pragma once

#include <cstddef>  // any header of the C library defines __GLIBC__, whose loader resolves the clones

// Sanitizers instrument the resolver, which runs before their runtime is ready: no clones then.
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(FASTFID_SANITIZED)
#define FASTFID_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FASTFID_CLONES
#endif
