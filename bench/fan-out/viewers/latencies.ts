export interface Percentiles {
  p50: number
  p99: number
}

export interface LatencySummary {
  /** From handing an event over until the last viewer has it, over the events. */
  last: Percentiles
  /** From handing an event over until a viewer has it, over all deliveries. */
  any: Percentiles
}

/** When each viewer had each event, or every so many-th event where that would be too much to keep. */
export class Arrivals {
  private readonly viewers: number
  private readonly first: number
  private readonly every: number
  private readonly times: Float64Array

  constructor({
    viewers,
    first,
    count,
    every,
  }: { viewers: number; first: number; count: number; every: number }) {
    this.viewers = viewers
    this.first = first
    this.every = every
    this.times = new Float64Array(viewers * Math.ceil(count / every))
  }

  note(viewer: number, sequence: number, time: number): void {
    const event = sequence - this.first
    if (event % this.every === 0) this.times[(event / this.every) * this.viewers + viewer] = time
  }

  /** `stamps`: when each event was handed over. */
  summary(stamps: readonly number[]): LatencySummary {
    const last: number[] = []
    const any = new Float64Array(this.times.length)
    let had = 0
    for (let event = 0; event * this.viewers < this.times.length; event++) {
      const stamp = stamps[event * this.every]
      if (stamp === undefined) break
      let latest = 0
      for (const time of this.times.subarray(event * this.viewers, (event + 1) * this.viewers)) {
        if (time === 0) continue
        const latency = time - stamp
        any[had++] = latency
        if (latency > latest) latest = latency
      }
      last.push(latest)
    }
    return { last: percentiles(Float64Array.from(last)), any: percentiles(any.subarray(0, had)) }
  }
}

function percentiles(values: Float64Array): Percentiles {
  values.sort()
  const at = (share: number) =>
    values[Math.min(values.length - 1, Math.ceil(values.length * share) - 1)] ?? Number.NaN
  return { p50: at(0.5), p99: at(0.99) }
}
