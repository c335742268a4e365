// Cover art, drawn: each design is a function of three colours (ground, shape, accent) on a square of 100 by 100.
const range = (n, draw) => Array.from({ length: n }, (_, i) => draw(i)).join("");

const designs = {
  sun: (ground, shape, accent) => `<circle cx="50" cy="46" r="27" fill="${shape}"/>` +
    range(7, i => `<rect x="0" y="${46 + i * 8}" width="100" height="${1.5 + i}" fill="${i < 3 ? ground : accent}"/>`),
  waves: (ground, shape, accent) => range(9, i =>
    `<path d="M-10 ${18 + i * 9}q15 ${-14 + i * 1.5} 30 0t30 0 30 0 30 0" fill="none" stroke="${i === 4 ? accent : shape}" stroke-width="${1 + i * .55}"/>`),
  rings: (ground, shape, accent) => range(8, i =>
    `<circle cx="${62 - i * 2}" cy="${42 + i * 2}" r="${48 - i * 6}" fill="${[shape, ground, accent, ground][i % 4]}"/>`),
  dots: (ground, shape, accent) => range(64, i => {
    const x = i % 8, y = Math.floor(i / 8);
    return `<circle cx="${9 + x * 11.7}" cy="${9 + y * 11.7}" r="${1 + ((x * 5 + y * 3) % 7) * .7}" fill="${x + y === 9 ? accent : shape}"/>`;
  }),
  bars: (ground, shape, accent) => range(12, i => {
    const height = 14 + Math.abs(Math.sin(i * 1.7) * 52) + (i % 3) * 5;
    return `<rect x="${9 + i * 7}" y="${86 - height}" width="4.6" height="${height}" rx="2" fill="${i % 4 === 2 ? accent : shape}"/>`;
  }),
  peaks: (ground, shape, accent) => `<circle cx="70" cy="28" r="11" fill="#fff" opacity=".85"/>` +
    `<path d="M0 72 22 40 38 58 60 30 100 74V100H0Z" fill="${shape}"/><path d="M0 84 30 62 52 78 78 54 100 72V100H0Z" fill="${accent}"/>` +
    `<path d="M0 100 46 84 100 92V100Z" fill="${ground}" opacity=".55"/>`,
  tiles: (ground, shape, accent) => range(16, i => {
    const x = (i % 4) * 25, y = Math.floor(i / 4) * 25, turn = (i * 7 + (i >> 2)) % 4;
    return `<g transform="translate(${x} ${y}) rotate(${turn * 90} 12.5 12.5)"><path d="M0 0H25A25 25 0 0 1 0 25Z" fill="${shape}"/>` +
      `<path d="M0 0H11A11 11 0 0 1 0 11Z" fill="${accent}"/></g>`;
  }),
};

export const cover = ({ cover: design, colors: [ground, shape, accent] }) =>
  `<svg viewBox="0 0 100 100" aria-hidden="true"><rect width="100" height="100" fill="${ground}"/>${designs[design](ground, shape, accent)}</svg>`;
