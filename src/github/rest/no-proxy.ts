import { BlockList, isIP } from 'node:net'

/**
 * Whether NO_PROXY exempts a URL from the proxy, by the rules of curl and Go. Its entries are separated by
 * commas or spaces, and each is
 * - `*`: everything;
 * - a host name, optionally with a leading `.` or `*.`, which also matches its subdomains, as with curl;
 * - an IP address or a network (10.0.0.0/8, fd00::/8), for URLs with an address: names are not resolved;
 * - a name or an address with a port, such as host:8080 or [::1]:8080.
 * Other entries are ignored: other programs, which may support more forms, read the same variable.
 */
export function isExemptFromProxy(noProxy: string, url: string): boolean {
  const { hostname, port, protocol } = new URL(url)
  const host = hostname.replace(/^\[|\]$|\.$/g, '')
  const effectivePort = port || (protocol === 'https:' ? '443' : '80')
  return noProxy
    .toLowerCase()
    .split(/[\s,]+/)
    .some((entry) => entry !== '' && matches(entry, host, effectivePort))
}

function matches(entry: string, host: string, port: string): boolean {
  if (entry === '*') return true
  const [, network, bits] = /^\[?([^/\]]+)\]?\/(\d{1,3})$/.exec(entry) ?? []
  if (network !== undefined) return isInNetwork(host, network, Number(bits))
  const { name, entryPort } = splitEntry(entry)
  if (entryPort !== undefined && entryPort !== port) return false
  if (isIP(name) || isIP(host)) return isInNetwork(host, name, isIP(name) === 4 ? 32 : 128)
  const domain = name.replace(/^\*?\.|\.$/g, '')
  return host === domain || host.endsWith(`.${domain}`)
}

/** An IPv6 address has a port only if it is in brackets. */
function splitEntry(entry: string): { name: string; entryPort: string | undefined } {
  if (isIP(entry)) return { name: entry, entryPort: undefined }
  const [, inBrackets, plain, entryPort] = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d+))?$/.exec(entry) ?? []
  return { name: inBrackets ?? plain ?? entry, entryPort }
}

function isInNetwork(address: string, network: string, bits: number): boolean {
  const version = isIP(network)
  if (version === 0 || isIP(address) === 0 || bits > (version === 4 ? 32 : 128)) return false
  // A BlockList with ::/0 would match every IPv4 address.
  if (version === 6 && isIP(address) === 4) return false
  const list = new BlockList()
  list.addSubnet(network, bits, version === 4 ? 'ipv4' : 'ipv6')
  // A BlockList treats ::ffff:10.0.0.1 as 10.0.0.1.
  return list.check(address, isIP(address) === 4 ? 'ipv4' : 'ipv6')
}
