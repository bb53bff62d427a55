/* SPDX-License-Identifier: Apache-2.0
 *
 * The interrupt mask of a ring.
 *
 * The producer writes, publishes its index, fences, and signals if the consumer has not masked its
 * interrupt and had read all that was published before. The consumer gives back what it took, clears
 * its mask, fences, looks once more, and sleeps only if there is nothing.
 *
 * Models RingProducer.commit (Sources/VMBus/Ring/RingProducer.swift), and receive, commit and arm of
 * RingConsumer (RingConsumer.swift). The Swift has more fences than these: each access of the control
 * page is sequentially consistent. Indices count packets here, and the ring never is full.
 *
 * Holds: all packets are received; nobody sleeps beside a packet. Must fail:
 *   NO_FENCE=1         producer: index published, mask and consumer's index read
 *   NO_FENCE=2         consumer: mask cleared, producer's index read
 *   NO_SECOND_LOOK     it sleeps as soon as the mask is cleared
 *   UNCOMMITTED_SLEEP  it sleeps with packets taken that it has not given back
 */

#define PACKETS 4

#define WORDS 3
#define PRODUCER_INDEX 0
#define CONSUMER_INDEX 1
#define INTERRUPT_MASK 2

#define PROCESSORS 2

#include "memory.pml"

bool interrupt;

active proctype Producer() {
  byte me = 0;
  byte next, before;
  do
  :: next == PACKETS -> break
  :: next < PACKETS ->
    before = next;
    /* A batch of one packet or two. */
    if
    :: next = next + 1
    :: next + 2 <= PACKETS -> next = next + 2
    fi;
    /* commit */
    STORE(PRODUCER_INDEX, next);
    FENCE(1);
    if
    :: LOAD(INTERRUPT_MASK) != 0
    :: LOAD(INTERRUPT_MASK) == 0 ->
      if
      :: LOAD(CONSUMER_INDEX) == before -> SIGNAL(interrupt)
      :: else
      fi
    fi
  od
}

#ifdef UNCOMMITTED_SLEEP
#define MAY_SLEEP (seen == next)
#else
#define MAY_SLEEP (seen == next && next == committed)
#endif

active proctype Consumer() {
  byte me = 1;
  byte next, committed, seen;
  /* init: masked until it arms. */
  STORE(INTERRUPT_MASK, 1);
  do
  :: /* receive: all of what is there, or less. */
    seen = LOAD(PRODUCER_INDEX);
    do
    :: next < seen -> next = next + 1
    :: break
    od;
    if
    :: next == PACKETS -> break
    :: else
    fi;
    /* commit, or later. */
    if
    :: next != committed -> committed = next; STORE(CONSUMER_INDEX, committed)
    :: true
    fi;
    /* arm, or poll again. */
    if
    :: true
    :: STORE(INTERRUPT_MASK, 0);
#ifdef NO_SECOND_LOOK
      SLEEP(interrupt);
#else
      FENCE(2);
      seen = LOAD(PRODUCER_INDEX);
      if
      :: MAY_SLEEP -> SLEEP(interrupt)
      :: else
      fi;
#endif
      /* mask; a worker that finds nothing leaves it as it is. */
      if
      :: STORE(INTERRUPT_MASK, 1)
      :: true
      fi
    fi
  od
}
