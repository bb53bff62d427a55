/* SPDX-License-Identifier: Apache-2.0
 *
 * The pending send size of a ring.
 *
 * A producer without room stores how many bytes it waits for, fences, looks once more, and sleeps. The
 * consumer publishes its index, fences, reads that size, and signals if it was not free before and is
 * now.
 *
 * Models RingProducer.waitForSpace (Sources/VMBus/Ring/RingProducer.swift), RingConsumer.commit
 * (RingConsumer.swift) and RingSlowPath.frees (RingSlowPath.swift), with their arithmetic round the end
 * of the ring. A unit is 4 bytes, so that packets and indices are even. The consumer never sleeps.
 *
 *   LINUX_CONSUMER  the peer is Linux (hv_pkt_iter_close): it counts the 8 bytes that stay free as free,
 *                   wants more than the pending size instead of as much, and rounds nothing.
 *   STANDING_SIZE   the peer is Linux's hv_sock: it states a size once, never takes it back, and then
 *                   only looks. The fence that it needs is that of the interrupt mask's handshake.
 *
 * Holds: all is sent, and no producer sleeps beside enough room. Must fail:
 *   NO_FENCE=1      producer: size stored, consumer's index read
 *   NO_FENCE=2      consumer: index published, size read
 *   NO_FENCE=3      producer, STANDING_SIZE: index published, consumer's index read
 *   NO_SECOND_LOOK  it sleeps as soon as the size is stored
 *   UNROUNDED       the size is no multiple of 8 bytes: the peer rounds it down and signals too early,
 *                   and then, as there is room in its eyes, never again
 */

#define PACKETS 4
/* In units of 4 bytes. */
#define SIZE 10
#define LARGEST 6

#define WORDS 3
#define PRODUCER_INDEX 0
#define CONSUMER_INDEX 1
#define PENDING_SEND_SIZE 2

#define PROCESSORS 2

#include "memory.pml"

bool interrupt;

/* RingMath.distance */
#define DISTANCE(from, to) (to >= from -> to - from : SIZE - (from - to))
#define FREE(consumer, producer) (SIZE - 2 - DISTANCE(consumer, producer))

#ifdef UNROUNDED
#define WISH (needed - 1)
#else
#define WISH needed
#endif

active proctype Producer() {
  byte me = 0;
  byte next, peer, needed, sent;
#ifdef STANDING_SIZE
  STORE(PENDING_SEND_SIZE, LARGEST);
#endif
  do
  :: sent == PACKETS -> break
  :: sent < PACKETS ->
    /* The next packet. */
    if
    :: needed != 0
    :: needed == 0 -> if :: needed = 2 :: needed = 4 :: needed = LARGEST fi
    fi;
    peer = LOAD(CONSUMER_INDEX);
    if
#ifdef STANDING_SIZE
    :: FREE(peer, next) >= LARGEST ->
#else
    :: FREE(peer, next) >= needed ->
#endif
      next = (next + needed) % SIZE;
      needed = 0;
      sent = sent + 1;
      STORE(PRODUCER_INDEX, next);
#ifdef STANDING_SIZE
      FENCE(3)
    :: else -> SLEEP(interrupt)
#else
    :: else ->
      /* waitForSpace */
      STORE(PENDING_SEND_SIZE, WISH);
#ifndef NO_SECOND_LOOK
      FENCE(1);
      peer = LOAD(CONSUMER_INDEX);
#endif
      if
      :: FREE(peer, next) >= WISH -> STORE(PENDING_SEND_SIZE, 0)
      :: else ->
        SLEEP(interrupt);
        /* stopWaitingForSpace, or the wish stands. */
        if
        :: STORE(PENDING_SEND_SIZE, 0)
        :: true
        fi
      fi
#endif
    fi
  od
}

#ifdef LINUX_CONSUMER
/* Unsigned numbers: what is less than 0 is large, in the kernel as in a byte. */
#define ROUNDED(size) size
#define CROSSES was <= pending && now > pending
#define FREE_NOW(consumer, producer) (SIZE - DISTANCE(consumer, producer))
#else
#define ROUNDED(size) (size & ~1)
#define CROSSES was < pending && now >= pending
#define FREE_NOW(consumer, producer) FREE(consumer, producer)
#endif

active proctype Consumer() {
  byte me = 1;
  byte next, before, taken, pending, producer, was, now;
end:
  do
  /* receive: some of what is there, in steps of 8 bytes. */
  :: LOAD(PRODUCER_INDEX) != next ->
    producer = LOAD(PRODUCER_INDEX);
    before = next;
    do
    :: next != producer -> next = (next + 2) % SIZE; taken = taken + 2
    :: taken != 0 -> break
    od;
    /* commit */
    STORE(CONSUMER_INDEX, next);
    FENCE(2);
    pending = ROUNDED(LOAD(PENDING_SEND_SIZE));
    if
    :: pending == 0
    :: pending != 0 ->
      producer = LOAD(PRODUCER_INDEX);
      now = FREE_NOW(next, producer);
#ifdef LINUX_CONSUMER
      was = now - taken;
#else
      was = FREE(before, producer);
#endif
      if
      :: CROSSES -> SIGNAL(interrupt)
      :: else
      fi
    fi;
    /* No state: fewer to search. */
    d_step { before = 0; taken = 0; pending = 0; producer = 0; was = 0; now = 0 }
  od
}
