export interface Percentiles {
  p50: number
  p99: number
}

export interface LatencySummary {
  /** From publishing an event until the last viewer has received it, over all events. */
  last: Percentiles
  /** From publishing an event until a viewer has received it, over all deliveries. */
  any: Percentiles
}

/** When each viewer received each event, or every n-th event where all would take too much memory. */
export class ArrivalTimes {
  private readonly viewers: number
  private readonly firstSequence: number
  private readonly samplingInterval: number
  private readonly times: Float64Array

  constructor({
    viewers,
    first,
    count,
    samplingInterval,
  }: { viewers: number; first: number; count: number; samplingInterval: number }) {
    this.viewers = viewers
    this.firstSequence = first
    this.samplingInterval = samplingInterval
    this.times = new Float64Array(viewers * Math.ceil(count / samplingInterval))
  }

  record(viewer: number, sequence: number, time: number): void {
    const event = sequence - this.firstSequence
    if (event % this.samplingInterval === 0)
      this.times[(event / this.samplingInterval) * this.viewers + viewer] = time
  }

  /** `stamps`: when each event was published. */
  summarize(stamps: readonly number[]): LatencySummary {
    const last: number[] = []
    const any = new Float64Array(this.times.length)
    let count = 0
    for (let event = 0; event * this.viewers < this.times.length; event++) {
      const stamp = stamps[event * this.samplingInterval]
      if (stamp === undefined) break
      let latest = 0
      for (const time of this.times.subarray(event * this.viewers, (event + 1) * this.viewers)) {
        if (time === 0) continue
        const latency = time - stamp
        any[count++] = latency
        if (latency > latest) latest = latency
      }
      last.push(latest)
    }
    return { last: percentiles(Float64Array.from(last)), any: percentiles(any.subarray(0, count)) }
  }
}

function percentiles(values: Float64Array): Percentiles {
  values.sort()
  const at = (share: number) =>
    values[Math.min(values.length - 1, Math.ceil(values.length * share) - 1)] ?? Number.NaN
  return { p50: at(0.5), p99: at(0.99) }
}
