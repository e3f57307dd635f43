import { BlockList, isIP } from 'node:net'

/**
 * Whether NO_PROXY exempts an address from the proxy, as curl and Go read it. Its items have commas or spaces between
 * them, and each is
 * - `*`: everything;
 * - a name, with or without a dot (or `*.`) in front, which stands for everything below it, too, as with curl;
 * - an IP address, or a network as 10.0.0.0/8 or fd00::/8, where the URL has an address itself: no name is looked up;
 * - a name or an address with a port, as host:8080 or [::1]:8080.
 * What is none of these exempts nothing: other programs read the same variable, and may know more.
 */
export function isExemptFromProxy(noProxy: string, url: string): boolean {
  const { hostname, port, protocol } = new URL(url)
  const host = hostname.replace(/^\[|\]$|\.$/g, '')
  const itsPort = port || (protocol === 'https:' ? '443' : '80')
  return noProxy
    .toLowerCase()
    .split(/[\s,]+/)
    .some((item) => item !== '' && matches(item, host, itsPort))
}

function matches(item: string, host: string, port: string): boolean {
  if (item === '*') return true
  const [, network, bits] = /^\[?([^/\]]+)\]?\/(\d{1,3})$/.exec(item) ?? []
  if (network !== undefined) return isInNetwork(host, network, Number(bits))
  const { name, itsPort } = split(item)
  if (itsPort !== undefined && itsPort !== port) return false
  if (isIP(name) || isIP(host)) return isInNetwork(host, name, isIP(name) === 4 ? 32 : 128)
  const domain = name.replace(/^\*?\.|\.$/g, '')
  return host === domain || host.endsWith(`.${domain}`)
}

/** An IPv6 address has a port behind it only where it stands in brackets. */
function split(item: string): { name: string; itsPort: string | undefined } {
  if (isIP(item)) return { name: item, itsPort: undefined }
  const [, inBrackets, plain, itsPort] = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d+))?$/.exec(item) ?? []
  return { name: inBrackets ?? plain ?? item, itsPort }
}

function isInNetwork(address: string, network: string, bits: number): boolean {
  const version = isIP(network)
  if (version === 0 || isIP(address) === 0 || bits > (version === 4 ? 32 : 128)) return false
  // To a BlockList ::/0 has all IPv4 addresses in it.
  if (version === 6 && isIP(address) === 4) return false
  const list = new BlockList()
  list.addSubnet(network, bits, version === 4 ? 'ipv4' : 'ipv6')
  // ::ffff:10.0.0.1 is 10.0.0.1 to it.
  return list.check(address, isIP(address) === 4 ? 'ipv4' : 'ipv6')
}
