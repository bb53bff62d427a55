/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared memory as x86 processors see it (total store order): a store waits in its processor's
 * buffer, behind those before it, and reaches memory when the hardware likes; a load may go to memory
 * meanwhile. So a store may be delayed past a later load, and nothing else changes its place.
 *
 * A model defines WORDS and PROCESSORS before it includes this, and `me` in each process. A processor
 * sees its own stores at once; models in which one loads a word that it stores use LOAD_OWN.
 */

#ifndef NO_FENCE
#define NO_FENCE 0
#endif

byte memory[WORDS];

/* What each processor has stored and memory has not: address, value. */
chan stores[PROCESSORS] = [3] of { byte, byte };

#define IS_DRAINED (len(stores[me]) == 0)

#define STORE(address, value) stores[me]!address, value
#define LOAD(address) memory[address]
/* For a word into which this processor stores nothing but `value`. */
#define LOAD_OWN(address, value) \
  (stores[me]??[eval(address), value] -> value : memory[address])

/* A full fence, by the number that -DNO_FENCE=number takes it away with. In Swift: the store before it
 * and the load after it are both `.sequentiallyConsistent`. */
#define FENCE(number) (NO_FENCE == number || IS_DRAINED)

/* An atomic read-modify-write is a full fence too. */
#define EXCHANGE(address, value, before) \
  atomic { IS_DRAINED -> before = memory[address]; memory[address] = value }
#define OR(address, bits, before) \
  atomic { IS_DRAINED -> before = memory[address]; memory[address] = before | bits }

/* A signal is a system call or a hypercall: what was stored before it is seen by whom it wakes. Signals
 * that nobody has taken yet are one. */
#define SIGNAL(interrupt) atomic { IS_DRAINED -> interrupt = true }
#define SLEEP(interrupt) atomic { interrupt -> interrupt = false }

/* The hardware. It may stop when all has been written. */
active [PROCESSORS] proctype StoreBuffer() {
  byte address, value;
end:
  do
  :: d_step { stores[_pid]?address, value -> memory[address] = value; address = 0; value = 0 }
  od
}
