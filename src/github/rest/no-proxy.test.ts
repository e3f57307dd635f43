import { expect, test } from '@jest/globals'
import { isExemptFromProxy } from './no-proxy.ts'

test.each([
  ['*', 'https://api.github.com'],
  ['example.com', 'https://example.com'],
  ['example.com', 'https://api.example.com'],
  ['EXAMPLE.com', 'https://Api.Example.COM'],
  ['example.com.', 'https://api.example.com'],
  ['example.com', 'https://api.example.com.'],
  ['.example.com', 'https://api.example.com'],
  ['.example.com', 'https://example.com'],
  ['*.example.com', 'https://api.example.com'],
  ['localhost, example.com', 'https://example.com'],
  ['localhost  example.com', 'https://example.com'],
  ['example.com:443', 'https://example.com'],
  ['example.com:80', 'http://example.com'],
  ['example.com:8080', 'http://api.example.com:8080'],
  ['127.0.0.1', 'http://127.0.0.1:3000'],
  ['127.0.0.1:3000', 'http://127.0.0.1:3000'],
  ['127.0.0.0/8', 'http://127.1.2.3:3000'],
  ['10.0.0.0/8,192.168.0.0/16', 'https://192.168.7.7'],
  ['10.1.2.3/8', 'https://10.9.9.9'],
  ['0.0.0.0/0', 'https://203.0.113.9'],
  ['10.0.0.7/32', 'https://10.0.0.7'],
  ['10.0.0.0/8', 'http://[::ffff:10.0.0.1]'],
  ['::1', 'http://[::1]:3000'],
  ['[::1]', 'http://[::1]:3000'],
  ['[::1]:3000', 'http://[::1]:3000'],
  ['0:0:0:0:0:0:0:1', 'http://[::1]'],
  ['fd00::/8', 'http://[fd12:3456::1]'],
  ['fd12:3456::/33', 'http://[fd12:3456::1]'],
  ['::/0', 'http://[2001:db8::1]'],
])('NO_PROXY=%s exempts %s', (noProxy, url) => {
  expect(isExemptFromProxy(noProxy, url)).toBe(true)
})

test.each([
  ['', 'https://example.com'],
  [' , ', 'https://example.com'],
  ['example.com', 'https://badexample.com'],
  ['example.com', 'https://example.com.evil.test'],
  ['.example.com', 'https://badexample.com'],
  ['.', 'https://example.com'],
  ['example.com:8080', 'https://example.com'],
  ['127.0.0.1:3001', 'http://127.0.0.1:3000'],
  ['127.0.0.0/8', 'http://128.0.0.1'],
  ['127.0.0.0/8', 'http://localhost'],
  ['10.0.0.0/33', 'http://10.0.0.0'],
  ['10.0.0.0/99', 'http://10.0.0.0'],
  ['fd00::/129', 'http://[fd00::]'],
  ['10.0.0/8', 'http://10.0.0.1'],
  ['127.*', 'http://127.0.0.1'],
  ['0.0.1', 'http://10.0.0.1'],
  ['::1', 'http://[::2]'],
  ['[::1]:3000', 'http://[::1]:3001'],
  ['fd00::/8', 'http://[fe80::1]'],
  ['::/0', 'http://10.0.0.1'],
  ['/8', 'http://10.0.0.1'],
  ['[', 'http://10.0.0.1'],
])('NO_PROXY=%s does not exempt %s', (noProxy, url) => {
  expect(isExemptFromProxy(noProxy, url)).toBe(false)
})
