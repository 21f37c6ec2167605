/** When each address has to be looked at again: a binary heap with one valid entry per address. */
export class ExpiryHeap {
  readonly #heap: { address: number; at: number }[] = [];
  readonly #next = new Map<number, number>();

  /**
   * Later times are not entered while an earlier one stands: whoever pops that one sees that the lease lasts longer and
   * pushes again. So renewals cost nothing and do not make the heap grow.
   */
  push(address: number, at: number): void {
    const known = this.#next.get(address);
    if (known !== undefined && known <= at) return;
    this.#next.set(address, at);
    this.#heap.push({ address, at });
    this.#up(this.#heap.length - 1);
  }

  /** Takes out one address whose time has come. */
  popEnded(now: number): number | undefined {
    const heap = this.#heap;
    for (let first = heap[0]; first && first.at <= now; first = heap[0]) {
      const last = heap.pop()!;
      if (heap.length > 0) {
        heap[0] = last;
        this.#down(0);
      }
      if (this.#next.get(first.address) !== first.at) continue; // replaced by an earlier time
      this.#next.delete(first.address);
      return first.address;
    }
    return undefined;
  }

  get size(): number {
    return this.#heap.length;
  }

  #up(start: number): void {
    const heap = this.#heap;
    for (let i = start; i > 0; ) {
      const parent = (i - 1) >> 1;
      if (heap[parent]!.at <= heap[i]!.at) return;
      [heap[parent], heap[i]] = [heap[i]!, heap[parent]!];
      i = parent;
    }
  }

  #down(start: number): void {
    const heap = this.#heap;
    for (let i = start; ; ) {
      const left = 2 * i + 1;
      let least = i;
      for (const child of [left, left + 1]) if (child < heap.length && heap[child]!.at < heap[least]!.at) least = child;
      if (least === i) return;
      [heap[least], heap[i]] = [heap[i]!, heap[least]!];
      i = least;
    }
  }
}
